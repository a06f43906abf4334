"""Engines answer alike, from one thread or many."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.pictures import encoded
from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, seal
from lensmith.bundle.golden import Golden
from lensmith.errors import BundleError, FallbackWarning, OutOfMemoryError
from lensmith.inference import engine as engine_room
from lensmith.inference.engine import ENGINES, FakeEngine, lacks, open_engine, open_graph

BATCH = np.random.default_rng(0).normal(0, 0.5, (5, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def graph(colour_bundle: Bundle) -> str:
    return str(colour_bundle.path / GRAPH)


def test_openvino_answers_as_onnx_runtime(graph: str) -> None:
    expected = open_graph(graph, "onnxruntime", "fp32", 1).run(BATCH)
    np.testing.assert_allclose(open_graph(graph, "openvino", "fp32", 1).run(BATCH), expected, atol=1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_concurrent_calls_do_not_mix(graph: str, engine: str) -> None:
    opened = open_graph(graph, engine, "fp32", 1)
    alone = [opened.run(image[np.newaxis]) for image in BATCH]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: opened.run(BATCH[i % 5][np.newaxis]), range(100)))
    for number, answer in enumerate(together):
        np.testing.assert_array_equal(answer, alone[number % 5])


FIRST_ANSWERS = """
import os, signal, sys, threading
import numpy as np
from lensmith.inference.engine import open_graph

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
sys.setswitchinterval(1e-6)
engines = [open_graph(sys.argv[1], "openvino", "fp32", threads=1)]
image, gate = np.zeros((1, 3, 32, 32), np.float32), threading.Barrier(8)
threads = [threading.Thread(target=lambda: (gate.wait(), engines[0].logits(image))) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
last = threading.Thread(target=engines.clear)  # another thread lets go of the last engine
last.start()
last.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.slow
def test_threads_that_all_ask_a_new_process_first_are_answered_and_signals_handled_afterwards(graph: str) -> None:
    for _ in range(3):  # two of three hung when nothing had been asked before
        command = [sys.executable, "-c", FIRST_ANSWERS, graph]
        assert subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE).stdout == b"handled\n"


def test_probabilities_sum_to_one_and_follow_the_temperature() -> None:
    logits = np.array([[1000.0, 0.0], [2.0, 1.0]], dtype=np.float32)
    sharp, soft = FakeEngine(lambda _: logits, 1.0).run(BATCH), FakeEngine(lambda _: logits, 10.0).run(BATCH)
    np.testing.assert_allclose(sharp.sum(1), 1, rtol=1e-6)
    assert sharp.dtype == np.float32
    assert soft[1, 0] == pytest.approx(1 / (1 + np.exp(-0.1)), rel=1e-5)


@pytest.fixture
def tuned(remake: Callable[..., Bundle], colour_bundle: Bundle) -> Bundle:
    """A bundle that was tuned for OpenVINO on a processor with VNNI."""
    plain = colour_bundle.records()[0]
    first = plain.model_copy(update={"engine": "openvino", "needs": ("VNNI", "AMX-INT8"), "why": "the fastest"})
    return remake("tuned", engines=(first, plain.model_copy(update={"chosen": False})))


def test_where_the_processor_has_what_the_chosen_engine_needs_it_runs(
    tuned: Bundle, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(engine_room, "instruction_sets", lambda: ["AVX2", "AMX-INT8"])
    assert open_engine(tuned, threads=1).name == "openvino"
    assert not [each for each in recwarn if each.category is FallbackWarning]


@pytest.mark.parametrize(
    ("sets", "installed", "lack"),
    [
        (["AVX2"], True, "this processor has no VNNI or AMX-INT8"),
        (["VNNI"], False, "openvino is not installed (pip install 'lensmith[openvino]')"),
    ],
)
def test_an_engine_that_cannot_run_here_gives_way_to_the_next_unless_it_was_named(
    tuned: Bundle, monkeypatch: pytest.MonkeyPatch, sets: list[str], installed: bool, lack: str
) -> None:
    monkeypatch.setattr(engine_room, "instruction_sets", lambda: sets)
    monkeypatch.setattr(engine_room, "find_spec", lambda name: installed or name != "openvino")
    assert lacks(tuned.records()[0]) == lack
    with pytest.warns(FallbackWarning, match=re.escape(f"on onnxruntime-fp32 here (openvino-fp32: {lack})")):
        assert open_engine(tuned, threads=1).name == "onnxruntime"
    with pytest.raises(BundleError, match=re.escape(f"openvino-fp32: {lack}")):
        open_engine(tuned, "openvino")


def test_engines_are_named_with_or_without_their_precision(tuned: Bundle) -> None:
    assert [each.name for each in tuned.records()] == ["openvino-fp32", "onnxruntime-fp32"]
    assert tuned.records("onnxruntime") == tuned.records("onnxruntime-fp32") == tuned.records()[1:]
    with pytest.raises(BundleError, match="onnxruntime-fp32"):
        open_engine(tuned, "tensorrt")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Exception during initialization: std::bad_alloc")])
def test_an_engine_that_runs_out_of_memory_is_no_broken_bundle(
    tuned: Bundle, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def open_graph(*_: object) -> None:
        raise error

    monkeypatch.setattr(engine_room, "open_graph", open_graph)
    with pytest.raises(OutOfMemoryError) as caught:
        open_engine(tuned, "onnxruntime")
    assert caught.value.exit_code == 5


def test_a_provider_that_the_package_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    missing = "onnxruntime here has no CUDAExecutionProvider (pip install onnxruntime-gpu)"
    assert ENGINES["onnxruntime-cuda"].missing() == missing
    assert ENGINES["onnxruntime"].missing() == ""


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_engines_on_a_gpu_answer_as_the_one_on_the_processor(graph: str, name: str) -> None:
    if reason := ENGINES[name].missing():
        pytest.skip(reason)
    expected = open_graph(graph, "onnxruntime", "fp32", 1).run(BATCH)
    np.testing.assert_allclose(open_graph(graph, name, "fp32", 1).run(BATCH), expected, atol=1e-4)


def test_golden_samples_of_values_without_a_range_are_an_error_of_the_bundle(
    colour_bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(colour_bundle.path, folder)
    floats = encoded(Image.fromarray(np.random.default_rng(0).random((32, 32), np.float32)), "TIFF")
    golden = colour_bundle.golden()
    Golden((floats,), golden.probabilities[:1]).save(folder / GOLDEN, colour_bundle.labels)
    with pytest.raises(BundleError) as caught:
        open_engine(seal(folder, colour_bundle.manifest))
    assert "float32" in caught.value.arrived
