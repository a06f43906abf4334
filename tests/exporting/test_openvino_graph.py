"""OpenVinoInt8 for OpenVINO by NNCF, with the layers that hurt put back."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lensmith.core.helper_process import HelperError
from lensmith.exporting import openvino_graph
from lensmith.exporting.openvino_graph import OpenVinoInt8
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.engine import open_graph

pytest.importorskip("nncf")

TRUTH = np.zeros(72, dtype=np.int64)


def answers(graph: Path, images: Tensor) -> Tensor:
    precision = "int8" if graph.suffix == ".xml" else "fp32"
    return open_graph(str(graph), "openvino", precision, threads=1).run(images)


@pytest.mark.slow
def test_int8_answers_nearly_as_fp32_and_is_smaller(its_graph: Path, its_images: Tensor, tmp_path: Path) -> None:
    builder = OpenVinoInt8(its_graph, its_images[::2], tmp_path / "nncf", False, lambda: (its_images, TRUTH), 0.5)
    assert builder.write(tmp_path / "int8.xml") == "NNCF"
    assert np.abs(answers(tmp_path / "int8.xml", its_images) - answers(its_graph, its_images)).max() < 0.2
    assert "FakeQuantize" in (tmp_path / "int8.xml").read_text()
    assert (tmp_path / "int8.bin").stat().st_size < 0.6 * its_graph.stat().st_size


@pytest.mark.slow
def test_layers_that_cost_accuracy_are_put_back_into_fp32_and_named(
    its_graph: Path, its_images: Tensor, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).standard_normal((256, 3, 32, 32)).astype(np.float32)
    truth = answers(its_graph, noise).argmax(1)  # on noise many answers are near ties, which int8 turns round
    builder = OpenVinoInt8(its_graph, its_images[::2], tmp_path / "nncf", False, lambda: (noise, truth), 0.0)
    path = tmp_path / "int8.xml"
    builder.write(path)
    before = (answers(path, noise).argmax(1) == truth).mean()
    assert before < 1
    kept = builder.exclude_layers(path)
    assert kept
    assert (answers(path, noise).argmax(1) == truth).mean() > before
    assert builder.exclude_layers(path) == ()


@pytest.mark.slow
def test_nothing_is_printed_and_no_use_reported(
    its_graph: Path, its_images: Tensor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[str, str]] = []
    honest = subprocess.run

    def watched(*args: Any, **more: Any) -> Any:
        seen.append(more["env"])
        return honest(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", watched)
        OpenVinoInt8(its_graph, its_images[:8], tmp_path / "nncf", False, lambda: (its_images, TRUTH), 0.5).write(
            tmp_path / "int8.xml"
        )
    assert capfd.readouterr() == ("", "")
    assert [env["NNCF_CI"] for env in seen] == ["1"]  # which is how NNCF is told not to report
    assert "NNCF_CI" not in os.environ


@pytest.mark.slow
def test_signals_are_handled_afterwards(its_graph: Path, its_images: Tensor, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", its_images[:8])
    code = f"""
import os, signal
import numpy as np
from pathlib import Path
from lensmith.inference.engine import open_graph
from lensmith.exporting.openvino_graph import OpenVinoInt8

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
images, folder = np.load({str(tmp_path / "images.npy")!r}), Path({str(tmp_path)!r})
graph, labelled = Path({str(its_graph)!r}), lambda: (images, np.zeros(8, int))
builder = OpenVinoInt8(graph, images, folder / "nncf", False, labelled, 0.0)
builder.write(folder / "int8.xml")
engine = open_graph(str(folder / "int8.xml"), "openvino", "int8", 1)
builder.exclude_layers(folder / "int8.xml")
engine.run(images)
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"handled\n"


@pytest.mark.slow
def test_layers_that_hurt_are_sought_for_a_limited_time(
    its_graph: Path, its_images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = OpenVinoInt8(its_graph, its_images[:8], tmp_path / "nncf", False, lambda: (its_images, TRUTH), 0.5)
    builder.write(tmp_path / "int8.xml")
    before = (tmp_path / "int8.bin").read_bytes()
    monkeypatch.setattr(openvino_graph, "CONTROL_LIMIT_S", 0.01)
    with pytest.raises(HelperError, match=r"0\.01 s"):
        builder.exclude_layers(tmp_path / "int8.xml")
    assert (tmp_path / "int8.bin").read_bytes() == before


@pytest.mark.slow
def test_what_fails_in_the_child_is_said(its_images: Tensor, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    builder = OpenVinoInt8(
        tmp_path / "broken.onnx", its_images[:8], tmp_path / "nncf", False, lambda: (its_images, TRUTH), 0.5
    )
    with pytest.raises(HelperError, match=r"broken\.onnx|parse|protobuf"):
        builder.write(tmp_path / "int8.xml")
    assert not (tmp_path / "int8.xml").exists()
