"""The script for small devices prepares and answers as lensmith does, without it."""

import dataclasses
import json
import runpy
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quantize_dynamic
from PIL import Image

from fixtures import picture_kinds
from fixtures.pictures import encoded, photo
from lensmith.errors import ImageError, ParityError
from lensmith.exporting.formats import edge
from lensmith.exporting.formats.base import FormatExport, TrainedNetwork, write_json
from lensmith.exporting.formats.registry import write_formats
from lensmith.imaging.preprocessing import preprocess

# Nothing but the standard library and three packages: what else is imported is refused, whether installed or not.
ALONE = """
import runpy, sys
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "PIL", "onnxruntime"}:
            raise ModuleNotFoundError(f"{name} is not allowed here", name=name)
sys.meta_path.insert(0, Only())
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not {"lensmith", "torch", "onnx", "pydantic"} & {*sys.modules}
"""


def run_alone(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", ALONE, folder / "classify.py", *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


@cache
def pictures() -> dict[str, bytes]:
    """Real pictures in many kinds of files, by name."""
    chelsea = photo()
    alpha = chelsea.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(chelsea.size))
    grey = chelsea.convert("L")
    found = {
        "photo.jpg": encoded(chelsea, "JPEG", quality=90),
        "large.jpg": encoded(chelsea.resize((1800, 1200)), "JPEG"),
        "tall.png": encoded(chelsea.resize((60, 200))),
        "tiny.png": encoded(chelsea.resize((9, 7))),
        "alpha.png": encoded(alpha),
        "alpha.webp": encoded(alpha, "WEBP", lossless=True),
        "grey.jpg": encoded(grey, "JPEG"),
        "grey_alpha.png": encoded(alpha.convert("LA")),
        "palette.png": encoded(chelsea.convert("P"), transparency=0),
        "key.png": encoded(chelsea, transparency=(0, 0, 0)),
        "bit.png": encoded(chelsea.convert("1")),
        "cmyk.jpg": encoded(chelsea.convert("CMYK"), "JPEG"),
        "deep.png": encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)),
        "deep_colour.png": picture_kinds.png_16(257, "RGB")(picture_kinds.pictures(1)[0], 1),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"turned{orientation}.jpg"] = encoded(chelsea.resize((900, 600)), "JPEG", exif=exif)
    return found


@pytest.fixture
def folder(written: dict[str, FormatExport]) -> Path:
    return written["edge"].path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name, content in pictures().items():
        (tmp_path / name).write_bytes(content)
    return sorted(tmp_path.iterdir())


def read_rows(output: str) -> dict[str, dict[str, float]]:
    rows = [line.split("\t") for line in output.splitlines()]
    return {row[0]: {cell.rpartition("=")[0]: float(cell.rpartition("=")[2]) for cell in row[1:]} for row in rows}


@pytest.mark.slow
def test_it_answers_as_lensmith_with_three_packages_alone(
    folder: Path, files: list[Path], network: TrainedNetwork
) -> None:
    run = run_alone(folder, *files, "--top", 3)
    assert run.returncode == 0, run.stderr
    found = read_rows(run.stdout)
    batch = np.stack([preprocess(file.read_bytes(), network.preprocessing) for file in files])
    expected = network.open_graph(network.graph).run(batch)
    assert [*found] == [*map(str, files)]
    for file, row in zip(files, expected, strict=True):
        answers = [found[str(file)][label] for label in network.labels]
        np.testing.assert_allclose(answers, row, atol=1e-4)
        assert [*found[str(file)].values()] == sorted(answers, reverse=True)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("resize", "share"), [("crop", 0.875), ("crop", 1.0), ("letterbox", 1.0), ("squash", 1.0)])
def test_every_picture_is_prepared_to_the_same_bits(
    resize: Any, share: float, interpolation: Any, folder: Path, network: TrainedNetwork, tmp_path: Path
) -> None:
    how = dataclasses.replace(
        network.preprocessing, image_size=48, resize=resize, crop_fraction=share, interpolation=interpolation
    )
    other = dataclasses.replace(network, preprocessing=how)
    write_json(tmp_path / "config.json", other.describe())
    shutil.copy(folder / "classify.py", tmp_path)
    prepare = runpy.run_path(str(tmp_path / "classify.py"))["prepare"]
    for name, content in pictures().items():
        found, expected = prepare(content), preprocess(content, how)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, err_msg=name)


DEEP = {
    "twelve.png": ("uint16", 16.0, 0.0), "unit.tiff": ("float32", 1 / 255, 0.0), "window.tiff": ("float32", 0.1, 300.0),
}  # fmt: skip
"""Kind of values, scale and offset of deep pictures."""


@pytest.mark.parametrize(
    "ranges", [{"uint16": (0, 4095), "float32": (0, 1)}, {"uint16": (5, 4000)}, {}, {"float32": (300, 325)}]
)
def test_deep_pictures_are_prepared_to_the_same_bits_or_refused(
    ranges: Any, folder: Path, network: TrainedNetwork, tmp_path: Path
) -> None:
    how = dataclasses.replace(network.preprocessing, value_ranges=ranges)
    write_json(tmp_path / "config.json", dataclasses.replace(network, preprocessing=how).describe())
    shutil.copy(folder / "classify.py", tmp_path)
    prepare = runpy.run_path(str(tmp_path / "classify.py"))["prepare"]
    grey = np.asarray(photo().convert("L"), dtype=np.float64)
    for name, (kind, scale, offset) in DEEP.items():
        content = encoded(Image.fromarray((grey * scale + offset).astype(kind)), name.rpartition(".")[2])
        try:
            expected = preprocess(content, how)
        except ImageError:
            with pytest.raises(ValueError, match=kind + "|range"):
                prepare(content)
        else:
            np.testing.assert_array_equal(prepare(content), expected, err_msg=name)


def test_every_kind_of_picture_is_prepared_to_the_same_bits_or_refused(
    folder: Path, network: TrainedNetwork, tmp_path: Path
) -> None:
    shutil.copy(folder / "classify.py", tmp_path)
    prepared = set()
    for ranges, ends in picture_kinds.RANGES.items():
        how = dataclasses.replace(network.preprocessing, value_ranges=ends)
        write_json(tmp_path / "config.json", dataclasses.replace(network, preprocessing=how).describe())
        prepare = runpy.run_path(str(tmp_path / "classify.py"))["prepare"]
        for name, kind in picture_kinds.KINDS.items():
            if kind.ranges == ranges:
                content = kind.write(picture_kinds.pictures(3)[2], 6 if kind.turns else 1)
                try:
                    found = prepare(content)
                except (ValueError, OSError, SyntaxError):  # refused
                    continue
                np.testing.assert_array_equal(found, preprocess(content, how), err_msg=name)
                prepared.add(name)
    assert prepared >= {"JPEG 2000", "PNG alpha", "PNG L of 12 bits", "PNG RGBA of 16 bits", "TIFF float of 12 bits"}
    assert len(prepared) > 55


def test_the_check_at_export_compares_pixels(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "preprocess", lambda *_: np.zeros((3, 32, 32), np.float32))
    with pytest.raises(ParityError, match="pixels"):
        write_formats(["edge"], network, tmp_path / "formats")


def test_an_int8_graph_takes_the_place_of_the_other(network: TrainedNetwork, files: list[Path], tmp_path: Path) -> None:
    int8 = tmp_path / "int8.onnx"
    graph = onnx.load(network.graph)
    del graph.graph.value_info[:]  # of before the optimiser, which the quantiser trips over
    quantize_dynamic(graph, str(int8))
    (made,) = write_formats(["edge"], dataclasses.replace(network, int8=int8), tmp_path / "formats")
    assert (made.path / "model.onnx").read_bytes() == int8.read_bytes()
    assert "int8" in made.note
    assert "(int8)" in (made.path / "README.md").read_text()
    image = preprocess(files[0].read_bytes(), network.preprocessing)[np.newaxis]
    expected = network.open_graph(int8, precision="int8").run(image)[0]
    (found,) = read_rows(run_alone(made.path, files[0]).stdout).values()
    np.testing.assert_allclose([found[label] for label in network.labels], expected, atol=1e-4)


def test_a_damaged_file_costs_only_its_own_line(folder: Path, files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(files[-1].read_bytes()[:500])
    run = run_alone(folder, broken, files[0], tmp_path / "absent.png", "--top", 1)
    assert run.returncode == 1
    assert [*read_rows(run.stdout)] == [str(files[0])]
    assert len(run.stderr.strip().splitlines()) == 2


def test_it_is_short_and_complete(folder: Path) -> None:
    names = {"classify.py", "config.json", "labels.txt", "model.onnx", "requirements.txt", "README.md"}
    assert {file.name for file in folder.iterdir()} == names
    assert len((folder / "classify.py").read_text().splitlines()) <= 140
    assert json.loads((folder / "config.json").read_text())["labels"] == ["blue", "green", "red"]
