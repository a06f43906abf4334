"""OpenVinoInt8 for OpenVINO by NNCF, with the layers that hurt put back."""

import shutil
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


def answers(graph: Path, images: Tensor) -> Tensor:
    precision = "int8" if graph.suffix == ".xml" else "fp32"
    return open_graph(str(graph), "openvino", precision, threads=1).run(images)


@pytest.fixture(scope="module")
def written(its_graph: Path, its_images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of int8.xml and int8.bin, built from half of the pictures, to be left as it is."""
    folder = tmp_path_factory.mktemp("openvino")
    assert builder(its_graph, its_images, folder).write(folder / "int8.xml") == "NNCF"
    return folder


def builder(
    graph: Path, images: Tensor, folder: Path, labelled: tuple[Tensor, Any] | None = None, max_drop_pp: float = 0.5
) -> OpenVinoInt8:
    loaded = labelled or (images, np.zeros(len(images), dtype=np.int64))
    return OpenVinoInt8(graph, images[::2], folder / "nncf", False, lambda: loaded, max_drop_pp)


@pytest.mark.slow
def test_int8_answers_nearly_as_fp32_and_is_smaller(written: Path, its_graph: Path, its_images: Tensor) -> None:
    path = written / "int8.xml"
    assert np.abs(answers(path, its_images) - answers(its_graph, its_images)).max() < 0.2
    assert "FakeQuantize" in path.read_text()
    assert path.with_suffix(".bin").stat().st_size < 0.6 * its_graph.stat().st_size


@pytest.mark.slow
def test_layers_that_cost_accuracy_are_put_back_into_fp32_and_named(
    written: Path, its_graph: Path, its_images: Tensor, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).standard_normal((128, 3, 32, 32)).astype(np.float32)
    truth = answers(its_graph, noise).argmax(1)  # on noise many answers are near ties, which int8 turns round
    before = (answers(written / "int8.xml", noise).argmax(1) == truth).mean()
    assert before < 1
    shutil.copytree(written / "nncf", tmp_path / "nncf")
    again = builder(its_graph, its_images, tmp_path, (noise, truth), 0.0)
    assert again.exclude_layers(tmp_path / "int8.xml")
    assert (answers(tmp_path / "int8.xml", noise).argmax(1) == truth).mean() > before
    assert again.exclude_layers(tmp_path / "int8.xml") == ()


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
OpenVinoInt8(Path({str(its_graph)!r}), images, folder / "nncf", False, None, 0.0).write(folder / "int8.xml")
open_graph(str(folder / "int8.xml"), "openvino", "int8", 1).run(images)
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"handled\n"


@pytest.mark.slow
def test_layers_that_hurt_are_sought_for_a_limited_time(
    written: Path, its_graph: Path, its_images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(written, tmp_path / "copy")
    before = (written / "int8.bin").read_bytes()
    monkeypatch.setattr(openvino_graph, "CONTROL_LIMIT_S", 0.01)
    with pytest.raises(HelperError):
        builder(its_graph, its_images, tmp_path / "copy").exclude_layers(tmp_path / "copy" / "int8.xml")
    assert (tmp_path / "copy" / "int8.bin").read_bytes() == before
