"""Speed of an engine, measured in a process of its own."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lensmith.bundle.format import Bundle, EngineRecord
from lensmith.errors import BundleError
from lensmith.inference.benchmark import Speed, measure, measure_all


@pytest.fixture
def plain(colour_bundle: Bundle) -> EngineRecord:
    return colour_bundle.records()[0]


def test_a_real_engine_has_every_figure(colour_bundle: Bundle, plain: EngineRecord) -> None:
    graph, how = colour_bundle.path / str(plain.graph), colour_bundle.manifest.preprocessing
    found = measure(graph, plain, how, colour_bundle.golden().images)
    assert 0 < found.latency_ms < 1000
    assert found.images_per_second > 1
    assert 0 < found.load_s < 60
    assert found.memory_bytes > 1_000_000
    record = found.added_to(plain)
    assert (record.latency_ms, record.memory_bytes) == (round(found.latency_ms, 3), found.memory_bytes)


@pytest.mark.slow
def test_an_engine_that_fails_says_why_and_does_not_stop_the_others(
    colour_bundle: Bundle, plain: EngineRecord, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes((colour_bundle.path / "model.onnx").read_bytes())
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    broken = plain.model_copy(update={"precision": "int8", "graph": "broken.onnx", "images_per_second": 9.0})
    how, images = colour_bundle.manifest.preprocessing, colour_bundle.golden().images
    found = measure_all(tmp_path, [broken, plain], how, images)
    assert found[0].images_per_second is None
    assert "INVALID_PROTOBUF" in found[0].why or "broken.onnx" in found[0].why
    assert found[1].images_per_second > 1
    with pytest.raises(BundleError, match=r"onnxruntime-int8 .*broken\.onnx"):
        measure(tmp_path / "broken.onnx", broken, how, images)


def test_a_crash_of_the_engine_is_a_reason_too(
    colour_bundle: Bundle, plain: EngineRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crashing = tmp_path / "python"
    crashing.write_text(f"#!{sys.executable}\nimport os\nos.abort()\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(BundleError, match="-6"):
        measure(colour_bundle.path / "model.onnx", plain, colour_bundle.manifest.preprocessing, [b""])


def test_of_two_measurements_the_better_values_count() -> None:
    first, second = Speed(5, 100, 2, 10), Speed(4, 90, 3, 20)
    assert first.better(second) == second.better(first) == Speed(4, 100, 2, 10)


def test_measuring_loads_no_torch_and_nothing_that_exports() -> None:
    import subprocess

    code = "import lensmith.inference.benchmark, lensmith.inference.retune, sys; print(*sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "onnx", "nncf", "sklearn", "jinja2"} & {name.partition(".")[0] for name in said.split()}
    assert np.__name__ in said.split()
