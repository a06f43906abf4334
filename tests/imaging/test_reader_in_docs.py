"""The reader that docs/bundle.md shows: run as it stands there, it makes lensmith's own pixels."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from fixtures.picture_kinds import KINDS, RANGES, SIDE, pictures
from fixtures.pictures import encoded, photo
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.imaging.preprocessing import Preprocessing, preprocess
from lensmith.inference.classifier import load

PAGE = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")
READER = PAGE.partition("## Reading one without lensmith")[2].partition("```python\n")[2].partition("```")[0]
PIXELS = READER.partition("\nengine = ")[0]


def examples() -> dict[str, bytes]:
    upright = photo("coffee.png").resize((300, 210))
    clear = upright.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(upright.size))
    palette = upright.quantize(16)
    values = np.asarray(upright.convert("L"), dtype=np.uint16)
    found = {
        "large JPEG": encoded(photo().resize((1500, 1100)), "JPEG"),
        "alpha": encoded(clear),
        "palette, one transparent": encoded(palette, transparency=3),
        "grey": encoded(upright.convert("L")),
        "grey and alpha": encoded(clear.convert("LA")),
        "CMYK JPEG": encoded(upright.convert("CMYK"), "JPEG"),
        "one bit": encoded(upright.convert("1")),
        "16-bit grey": encoded(Image.fromarray(values * 257)),
        "10-bit grey": encoded(Image.fromarray(values * 4)),
        "16-bit TIFF": encoded(Image.fromarray(values * 257), "TIFF"),
        "WebP": encoded(upright, "WEBP"),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"orientation {orientation}"] = encoded(upright, "JPEG", exif=exif)
    return found


PICTURES = examples()


@pytest.mark.parametrize("resize", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("name", PICTURES)
def test_the_reader_in_the_docs_makes_the_bundles_own_pixels(
    name: str, resize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = {"uint16": (0.0, 1023.0 if name == "10-bit grey" else 65535.0)}
    how = Preprocessing(48, resize=resize, crop_fraction=0.9, value_ranges=ranges)  # type: ignore[arg-type]
    (tmp_path / MANIFEST).write_text(json.dumps({"schema_version": 1, "preprocessing": asdict(how)}))
    (tmp_path / "picture").write_bytes(PICTURES[name])
    monkeypatch.setattr(sys, "argv", ["reader", str(tmp_path), str(tmp_path / "picture")])
    names: dict[str, np.ndarray] = {}
    exec(PIXELS, names)
    assert np.array_equal(names["batch"][0], preprocess(PICTURES[name], how))


def test_the_reader_makes_the_bundles_pixels_of_every_kind_of_picture_or_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never other pixels than the bundle's, whatever Pillow alone makes of a file."""
    monkeypatch.setattr(sys, "argv", ["reader", str(tmp_path), str(tmp_path / "picture")])
    reader = compile(PIXELS, "docs/bundle.md", "exec")
    made = set()
    for name, kind in KINDS.items():
        how = Preprocessing(SIDE, "squash", value_ranges=RANGES[kind.ranges])
        written = kind.write(pictures(3)[2], 6 if kind.turns else 1)
        (tmp_path / MANIFEST).write_text(json.dumps({"schema_version": 1, "preprocessing": asdict(how)}))
        (tmp_path / "picture").write_bytes(written)
        names: dict[str, np.ndarray] = {}
        try:
            exec(reader, names)
        except (AssertionError, UnidentifiedImageError, OSError, SyntaxError):
            continue
        assert np.array_equal(names["batch"][0], preprocess(written, how)), name
        made.add(name)
    assert made >= {
        "PNG alpha",
        "PNG L of 12 bits",
        "PNG RGBA of 16 bits",
        "TIFF grey of 14 bits >",
        "TIFF white is zero",
    }
    assert len(made) > 45


def test_the_whole_reader_gives_the_bundles_answer(colour_bundle: Bundle, shared_colours: Path) -> None:
    picture = shared_colours / "red" / "001.jpg"
    command = [sys.executable, "-c", READER, str(colour_bundle.path), str(picture)]
    label, confidence = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    expected = load(colour_bundle.path).classify(picture.read_bytes()).top[0]
    assert (label, float(confidence)) == (expected.label, pytest.approx(expected.confidence, abs=1e-5))
