"""Images that a model knows are left out of its figures, whatever became of the folder since."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, seal, write_manifest
from lensmith.bundle.image_hashes import FILE, ImageHashes
from lensmith.config import EvaluateSettings
from lensmith.data.scan import scan
from lensmith.errors import DataError
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.run import evaluate


@pytest.fixture
def bundle(colour_bundle: Bundle, colours: Path, tmp_path: Path) -> Bundle:
    """A bundle that learnt from the first 4 pictures of each colour and was chosen on the next 2; 2 are held out."""
    files = {label: sorted((colours / label).iterdir()) for label in ("blue", "green", "red")}
    train, val = ([file for each in files.values() for file in each[rows]] for rows in (slice(4), slice(4, 6)))
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in (GRAPH, GOLDEN):
        shutil.copy(colour_bundle.path / name, folder)
    hashes = ImageHashes.of(train, val)
    hashes.save(folder / FILE)
    return seal(folder, colour_bundle.manifest.model_copy(update={"image_hashes": hashes.entry}))


def run(bundle: Bundle, data: Path, part: str = "auto") -> Evaluation:
    out = bundle.path.parent / "evaluation"
    return evaluate(EvaluateSettings.model_validate({"bundle": bundle.path, "data": data, "part": part, "out": out}))


def in_parts(colours: Path, **rows: slice) -> Path:
    """The pictures in part folders: of each colour those rows."""
    root = colours.parent / "parts"
    for label in ("blue", "green", "red"):
        for part, taken in rows.items():
            (root / part / label).mkdir(parents=True)
            for file in sorted((colours / label).iterdir())[taken]:
                shutil.copy(file, root / part / label)
    return root


def rename(colours: Path) -> Path:
    for number, file in enumerate(sorted(colours.rglob("*.*"))):
        file.rename(file.with_name(f"{999 - number}-new{file.suffix}"))
    return colours


def one_more(colours: Path) -> Path:
    """A photo is added, and one that was held out is removed, so that the counts stay."""
    Image.new("RGB", (40, 40), (200, 20, 20)).save(colours / "red" / "new.png")
    (colours / "red" / "007.jpg").unlink()
    return colours


def rewrite(colours: Path) -> Path:
    for file in colours.rglob("*.png"):
        text = PngInfo()
        text.add_text("Software", "another program")
        Image.open(file).save(file, pnginfo=text, compress_level=1)
    for file in colours.rglob("*.jpg"):
        content = file.read_bytes()
        file.write_bytes(content[:2] + b"\xff\xfe\x00\x05own" + content[2:])
    return colours


def as_table(colours: Path) -> Path:
    table = colours.parent / "tables" / "all.csv"
    table.parent.mkdir()
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        writer.writerows((str(each), each.parent.name) for each in sorted(colours.rglob("*.*")))
    return table


def moved_to_test(colours: Path) -> Path:
    return in_parts(colours, test=slice(0, 8))


def deeper(colours: Path) -> Path:
    for folder in colours.iterdir():
        files = sorted(folder.iterdir())
        (folder / "camera 1").mkdir()
        for file in files:
            file.rename(folder / "camera 1" / file.name)
    return colours


@pytest.mark.parametrize("change", [rename, one_more, rewrite, as_table, moved_to_test, deeper])
def test_known_images_are_left_out_whatever_became_of_the_folder(
    bundle: Bundle, colours: Path, change: Callable[[Path], Path]
) -> None:
    found = run(bundle, change(colours))
    assert found.metrics.images == 6
    assert found.held_out is not None
    counts = found.held_out.as_dict()
    assert counts == {
        "of": 24, "learnt": 12, "chosen": 6, "left_out": 18, "complete": True, "included": [], "copies": 0,
    }  # fmt: skip
    assert found.headline.startswith("held out 6 of 24 images")
    assert found.metrics.confusion.sum(axis=1).tolist() == [2, 2, 2]
    stored = json.loads((bundle.path.parent / "evaluation" / "evaluation.json").read_text())
    assert (stored["held_out"], stored["images"]) == (counts, 6)
    assert "held out 6 of 24 images" in (bundle.path.parent / "evaluation" / "report.html").read_text()


def test_a_folder_of_known_images_alone_is_an_error_and_no_figure(bundle: Bundle, colours: Path) -> None:
    for data in (in_parts(colours, train=slice(0, 4), test=slice(4, 6)), colours):
        if data is colours:
            for file in colours.rglob("00[67].*"):
                file.unlink()
        with pytest.raises(DataError, match="neither learnt from nor was chosen on"):
            run(bundle, data)
        assert not (bundle.path.parent / "evaluation").exists()


def test_the_validation_part_is_evaluated_where_there_is_no_test_part_and_called_so(
    bundle: Bundle, colours: Path
) -> None:
    data = in_parts(colours, train=slice(0, 4), val=slice(4, 6))
    for part in ("auto", "val"):
        found = run(bundle, data, part)
        assert (found.part, found.metrics.images) == ("val", 6)
        assert found.headline == "6 of 6 images, part val, not held out: the model was chosen on 6 of them"


def test_training_images_in_the_validation_part_are_left_out(bundle: Bundle, colours: Path) -> None:
    data = in_parts(colours, train=slice(0, 2), val=slice(2, 8))  # 2 learnt from, 2 chosen on, 2 held out
    found = run(bundle, data)
    assert found.held_out is not None
    assert (found.metrics.images, found.held_out.left_out) == (12, 6)
    assert found.headline == "12 of 18 images, part val, not held out: the model was chosen on 6 of them"
    swapped = in_parts(Path(shutil.copytree(colours, colours.parent / "x" / "colours")), val=slice(0, 4))
    with pytest.raises(DataError, match="learnt from 12"):
        run(bundle, swapped, "val")


def test_new_validation_images_are_held_out(bundle: Bundle, colours: Path) -> None:
    found = run(bundle, in_parts(colours, train=slice(0, 6), val=slice(6, 8)))
    assert found.headline == "held out 6 of 6 images, part val"


def test_the_training_part_is_evaluated_when_it_is_asked_for_and_called_so(bundle: Bundle, colours: Path) -> None:
    found = run(bundle, in_parts(colours, train=slice(0, 8), test=slice(0, 0)), "train")
    assert found.headline == (
        "24 of 24 images, part train, not held out: the model learnt from 12 and was chosen on 6 of them"
    )


def test_a_bundle_without_hashes_says_that_it_cannot_know(colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    settings = EvaluateSettings(bundle=colour_bundle.path, data=colours, out=tmp_path / "evaluation")
    found = evaluate(settings)
    assert found.headline == "24 images, all parts; which of them the model learnt from is not known"
    assert any("no image hashes" in note for note in found.notes)
    assert found.held_out is not None
    assert (found.held_out.learnt, found.held_out.chosen, found.held_out.left_out) == (None, None, 0)


def test_a_bundle_without_hashes_knows_the_parts_of_an_unchanged_folder(
    remake: Callable[..., Bundle], colours: Path, tmp_path: Path
) -> None:
    data = in_parts(colours, train=slice(0, 4), val=slice(4, 6), test=slice(6, 8))
    old = remake("old", dataset={"fingerprint": scan(data).fingerprint})
    found = evaluate(EvaluateSettings(bundle=old.path, data=data, out=tmp_path / "evaluation"))
    assert found.headline == "held out 6 of 6 images, part test"
    found = evaluate(EvaluateSettings(bundle=old.path, data=data, part="all", out=tmp_path / "evaluation"))
    assert found.headline == "held out 6 of 24 images"


def test_a_zipped_bundle_knows_the_same_images(
    bundle: Bundle, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    packed = bundle.pack(tmp_path / "packed.zip")
    found = evaluate(EvaluateSettings(bundle=packed, data=colours, out=tmp_path / "evaluation"))
    assert found.headline == "held out 6 of 24 images"


def test_copies_among_held_out_images_are_told(bundle: Bundle, colours: Path) -> None:
    held_out = sorted((colours / "red").iterdir())[7]
    shutil.copy(held_out, colours / "red" / "copy.png")
    with Image.open(held_out) as picture:
        picture.save(colours / "red" / "rewritten.webp", lossless=True)
    shutil.copy(sorted((colours / "red").iterdir())[0], colours / "red" / "z.png")  # of a training image: left out
    found = run(bundle, colours)
    assert found.headline == "held out 8 of 27 images"
    assert found.held_out is not None
    assert found.held_out.copies == 2
    assert any("2 are copies of others" in note for note in found.notes)


def test_missing_hashes_are_told(bundle: Bundle, colours: Path) -> None:
    entry = bundle.manifest.image_hashes
    assert entry is not None
    partial = bundle.manifest.model_copy(update={"image_hashes": entry.model_copy(update={"complete": False})})
    write_manifest(partial, bundle.path)
    assert any("were gone when it was made" in note for note in run(bundle, colours).notes)
