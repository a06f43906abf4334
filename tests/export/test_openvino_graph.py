"""Int8 for OpenVINO by NNCF, with the layers that hurt put back."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lensmith.engine import open_graph
from lensmith.export.openvino_graph import Int8
from lensmith.image import Tensor

pytest.importorskip("nncf")


def answers(graph: Path, images: Tensor) -> Tensor:
    precision = "int8" if graph.suffix == ".xml" else "fp32"
    return open_graph(str(graph), "openvino", precision, threads=1).run(images)


def test_int8_answers_nearly_as_fp32_and_is_smaller(its_graph: Path, its_images: Tensor, tmp_path: Path) -> None:
    maker = Int8(its_graph, its_images[::2], False, lambda: (its_images, np.zeros(len(its_images), int)), 0.5)
    assert maker.write(tmp_path / "int8.xml") == "NNCF"
    assert np.abs(answers(tmp_path / "int8.xml", its_images) - answers(its_graph, its_images)).max() < 0.2
    assert "FakeQuantize" in (tmp_path / "int8.xml").read_text()
    assert (tmp_path / "int8.bin").stat().st_size < 0.6 * its_graph.stat().st_size


@pytest.mark.slow
def test_layers_that_cost_accuracy_are_put_back_into_fp32_and_named(
    its_graph: Path, its_images: Tensor, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).standard_normal((256, 3, 32, 32)).astype(np.float32)
    truth = answers(its_graph, noise).argmax(1)  # on noise many answers are near ties, which int8 turns round
    maker = Int8(its_graph, its_images[::2], False, lambda: (noise, truth), 0.0)
    path = tmp_path / "int8.xml"
    maker.write(path)
    before = (answers(path, noise).argmax(1) == truth).mean()
    assert before < 1
    kept = maker.spare(path)
    assert kept
    assert (answers(path, noise).argmax(1) == truth).mean() > before
    assert maker.spare(path) == ()


def test_nothing_is_printed_and_no_use_reported(its_graph: Path, its_images: Tensor, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", its_images[:8])
    code = f"""
import sys
import numpy as np
from pathlib import Path
from lensmith.export.openvino_graph import Int8
images = np.load({str(tmp_path / "images.npy")!r})
Int8(Path({str(its_graph)!r}), images, False, lambda: (images, images), 0.5).write(Path({str(tmp_path / "int8.xml")!r}))
from nncf.telemetry.wrapper import telemetry
print(type(telemetry).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "MagicMock\n"
    assert "Statistics" not in done.stderr
