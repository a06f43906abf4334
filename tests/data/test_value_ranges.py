"""The value range of an image set: from its training part alone, in the data check, and an error where it is mixed."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.pictures import photo
from lensmith.config import TrainSettings
from lensmith.data.readable import without_unreadable
from lensmith.data.scan import scan
from lensmith.data.value_ranges import decide_ranges
from lensmith.data.verify import check
from lensmith.errors import DataError
from lensmith.imaging.decoding import decode
from lensmith.training import trainer

GREY = np.asarray(photo("camera.png").convert("L").resize((40, 40)), dtype=np.float64)


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_set(root: Path, scales: dict[str, float], ending: str = "png", dtype: type = np.uint16) -> Path:
    """Three pictures a folder, each a photo times the folder's scale and a little darker than the one before."""
    for at, (folder, scale) in enumerate(scales.items()):
        for number in range(3):
            turned = np.roll(GREY, at, axis=0)  # copies would be findings
            write(root / folder / f"{number}.{ending}", (turned * scale * (1 - 0.1 * number)).astype(dtype))
    return root


@pytest.mark.parametrize(
    ("scale", "ending", "dtype", "kind", "expected"),
    [
        (4, "png", np.uint16, "uint16", (0, 1023)),
        (16, "png", np.uint16, "uint16", (0, 4095)),
        (64, "tif", np.uint16, "uint16", (0, 16383)),
        (257, "png", np.uint16, "uint16", (0, 65535)),
        (1 / 255, "tif", np.float32, "float32", (0, 1)),
        (1, "tiff", np.float32, "float32", (0, 255)),
        (257, "tif", np.int32, "int32", (0, 65535)),
    ],
)
def test_one_range_is_decided_for_a_set(
    tmp_path: Path, scale: float, ending: str, dtype: type, kind: str, expected: tuple[float, float]
) -> None:
    root = write_set(tmp_path / "set", {"a": scale, "b": scale}, ending, dtype)
    assert decide_ranges(scan(root)) == {kind: expected}
    checked = check(root)
    assert json.loads(json.dumps(checked.as_dict()))["value_ranges"] == {kind: list(expected)}
    assert checked.findings == ()


def test_8_bit_files_need_no_range_and_are_not_decoded(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensmith.data.value_ranges.value_statistics", lambda encoded: pytest.fail("decoded"))
    assert decide_ranges(scan(colours)) == {}


def test_the_training_part_decides(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train/a": 16, "train/b": 15, "val/a": 16, "val/b": 16})
    write(root / "val/a/brighter.png", (GREY * 32).astype(np.uint16))
    assert decide_ranges(scan(root)) == {"uint16": (0, 4095)}
    assert [(each.path, each.kind) for each in check(root).findings] == [("val/a/brighter.png", "value range")]


@pytest.mark.parametrize(
    ("scales", "ending", "dtype"),
    [
        ({"a": 16, "b": 257}, "png", np.uint16),
        ({"a": 16, "b": 64}, "png", np.uint16),
        ({"a": 4, "b": 16}, "tif", np.uint16),
        ({"a": 1 / 255, "b": 1}, "tif", np.float32),
        ({"train/a": 257, "train/b": 257, "test/a": 16, "test/b": 16}, "png", np.uint16),
    ],
)
def test_a_set_of_two_ranges_is_refused_and_files_of_each_are_named(
    tmp_path: Path, scales: dict[str, float], ending: str, dtype: type
) -> None:
    root = write_set(tmp_path / "set", scales, ending, dtype)
    with pytest.raises(DataError) as caught:
        decide_ranges(scan(root))
    darker = {folder for folder, scale in scales.items() if scale == min(scales.values())}
    for folder in scales:
        assert f"{folder}/0.{ending}" in caught.value.arrived or folder not in ("a", "b")
    checked = check(root)
    found = {each.path for each in checked.findings if each.kind == "value range"}
    assert found == {f"{folder}/{number}.{ending}" for folder in darker for number in range(3)}
    assert any("different ranges" in warning for warning in checked.warnings)


def test_values_that_no_training_image_has_are_refused(tmp_path: Path, colours: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(colours, tmp_path / "set" / part)
    write(tmp_path / "set/val/red/float.tif", GREY.astype(np.float32))
    with pytest.raises(DataError, match=r"val/red/float\.tif"):
        decide_ranges(scan(tmp_path / "set"))
    assert [each.path for each in check(tmp_path / "set").findings if each.kind == "value range"] == [
        "val/red/float.tif"
    ]


def test_one_dark_picture_and_unreadable_files_change_nothing(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"a": 257, "b": 257})
    write(root / "a/night.png", (GREY * 9).astype(np.uint16))
    whole = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16)).save(whole, "PNG")
    (root / "b/cut.png").write_bytes(whole.getvalue()[:200])
    assert decide_ranges(scan(root)) == {"uint16": (0, 65535)}
    assert any("a/night.png" in warning for warning in check(root).warnings)


def test_padding_and_blank_pictures_decide_nothing_and_what_is_outside_the_range_is_not_trained_on(
    tmp_path: Path,
) -> None:
    root = write_set(tmp_path / "set", {"a": 16, "b": 16})
    framed = np.pad((GREY * 16).astype(np.uint16), 4, constant_values=65535)
    write(root / "a/framed.png", framed)
    write(root / "b/blank.png", np.full((40, 40), 65535, np.uint16))
    images = scan(root)
    ranges = decide_ranges(images)
    assert ranges == {"uint16": (0, 4095)}
    assert [(each.path, each.kind) for each in check(root).findings] == [("b/blank.png", "value range")]
    left = without_unreadable(without_unreadable(images), ranges)
    assert [path for path, _ in left.set_aside] == ["b/blank.png"]
    assert len(left.samples) == 7
    found = np.asarray(decode((root / "a/framed.png").read_bytes(), value_ranges=ranges))[..., 0]
    assert np.array_equal(found, np.pad(GREY.astype(np.uint8), 4, constant_values=255))


@pytest.mark.parametrize("training", ["8 bits", "12 bits"])
def test_a_run_trains_on_what_is_of_its_range_alone(training: str, tmp_path: Path) -> None:
    """`_images` is what every training begins with."""
    root = write_set(tmp_path / "set", {"train/a": 16, "train/b": 16, "val/a": 16, "val/b": 16})
    write(root / "val/b/blank.png", np.full((40, 40), 65535, np.uint16))
    if training == "8 bits":
        for file in root.glob("train/*/*.png"):
            write(file, (np.asarray(Image.open(file)) >> 4).astype(np.uint8))
    settings = TrainSettings(data=root)
    if training == "8 bits":
        with pytest.raises(DataError, match="Training images with uint16"):
            trainer._images(settings)
        return
    images, ranges = trainer._images(settings)
    assert ranges == {"uint16": (0, 4095)}
    assert [path for path, _ in images.set_aside] == ["val/b/blank.png"]
    assert all(sample.path != "val/b/blank.png" for sample in images.samples)
