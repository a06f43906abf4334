"""Old pictures keep the part that they had for the champion; only new ones are divided."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.pictures import COLOURS, coloured_picture
from lensmith.bundle.format import Bundle, seal
from lensmith.bundle.image_hashes import FILE, ImageHashes
from lensmith.data.scan import scan
from lensmith.errors import DataError
from lensmith.workflows.update.champion_pipeline import new_classes
from lensmith.workflows.update.parts import DividedPictures, divide_pictures

Divide = Callable[..., DividedPictures]


@pytest.fixture
def data(many_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(many_colours, tmp_path / "data"))


@pytest.fixture
def divide(data: Path, remake: Callable[..., Bundle], tmp_path: Path) -> Divide:
    """`divide(**recipe)`: of each class the champion learnt from 10, was chosen on 5 and tested on 4 pictures."""
    bundle = remake("champion")
    of_class = [sorted((data / label).iterdir()) for label in COLOURS]
    parts = ([f for files in of_class for f in files[start:end]] for start, end in ((0, 10), (10, 15), (15, 19)))
    hashes = ImageHashes.of(*parts)
    hashes.save(bundle.path / FILE)
    champion = seal(bundle.path, bundle.manifest.model_copy(update={"image_hashes": hashes.entry}))

    def run(source: Path = data, exclude: Path | None = None, **recipe: object) -> DividedPictures:
        return divide_pictures(source, tmp_path / "out/colours/splits.csv", champion, recipe, exclude, None)

    return run


def add(data: Path, label: str, number: int) -> str:
    name = f"{label}/new-{number}.png"
    coloured_picture(COLOURS[label], seed=1000 + number).save(data / name)
    return name


def parts(divided: DividedPictures) -> dict[str, str]:
    images = divided.images
    return {images.file(sample).name + images.labels[sample.label]: str(sample.part) for sample in images.samples}


def test_what_the_champion_knows_keeps_its_part_also_under_another_name(divide: Divide, data: Path) -> None:
    (data / "red/000.png").rename(data / "red/zzz.png")
    found = parts(divide())
    assert {found[f"{number:03d}.{'jpg' if number % 2 else 'png'}blue"] for number in range(10)} == {"train"}
    assert {found[f"{number:03d}.{'jpg' if number % 2 else 'png'}green"] for number in range(10, 15)} == {"val"}
    assert found["zzz.pngred"] == "train"


def test_what_the_champion_was_tested_on_is_not_new_and_tests_again(divide: Divide, data: Path) -> None:
    (data / "red/015.jpg").rename(data / "red/held out.jpg")
    name = add(data, "red", 1)
    divided = divide()
    assert parts(divided)["held out.jpgred"] == parts(divided)["018.pngblue"] == "test"
    unknown = {f"{number:03d}.{'jpg' if number % 2 else 'png'}" for number in range(19, 24)}
    assert {Path(path).name for path in divided.new} == {*unknown, Path(name).name}


def test_new_pictures_move_no_old_one(divide: Divide, data: Path) -> None:
    before = divide()
    names = [add(data, label, number) for label in COLOURS for number in range(3)]
    now = divide()
    assert {name: part for name, part in parts(now).items() if not name.startswith("new")} == parts(before)
    new = {(now.images.root / path).resolve() for path in now.new}
    assert {(data / name).resolve() for name in names} <= new
    assert divide().new == now.new  # they stay new until a model knows them


def test_the_run_of_the_champion_tells_what_was_held_out(divide: Divide, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    rows = [f"../data/{file.parent.name}/{file.name},{file.parent.name},test" for file in sorted(data.glob("*/02*"))]
    (run / "splits.csv").write_text("\n".join(["path,label,split", *rows, ""]))
    name = add(data, "red", 1)
    divided = divide(out=str(run))
    assert all(part == "test" for file, part in parts(divided).items() if file.startswith("02"))
    assert (data / name).resolve() in {(divided.images.root / path).resolve() for path in divided.new}
    assert not any("02" in Path(path).name for path in divided.new)


def test_labels_of_the_folder_hold_and_not_those_of_the_last_update(divide: Divide, data: Path) -> None:
    table = data / "labels.csv"
    files = sorted(data.glob("*/*.*"))
    table.write_text("".join(["path,label\n", *(f"{f.parent.name}/{f.name},{f.parent.name}\n" for f in files)]))
    divide(table)
    table.write_text(table.read_text().replace("red/000.png,red", "red/000.png,blue"))
    found = divide(table)
    assert parts(found)["000.pngblue"] == "train"
    assert "000.pngred" not in parts(found)


def test_labels_and_parts_of_the_folders_own_manifest_hold(divide: Divide, data: Path) -> None:
    lines = ["path,label,split"]
    for label in COLOURS:
        for number, file in enumerate(sorted((data / label).iterdir())):
            lines.append(
                f"{label}/{file.name},{'green' if file.name == '020.png' else label},{'val' * (number > 18) or 'train'}"
            )
    (data / "splits.csv").write_text("\n".join([*lines, ""]))
    add(data, "red", 1)
    divided = divide()
    images = divided.images
    assert len(images.samples) == 73
    assert {images.labels[sample.label] for sample in images.samples if "020.png" in sample.path} == {"green"}
    assert {sample.part for sample in images.samples if "022.png" in sample.path} == {"val"}


def test_a_split_by_folders_is_unchanged(divide: Divide, data: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        shutil.copytree(data, tmp_path / "parted" / part, ignore=shutil.ignore_patterns("splits.csv"))
    for file in (tmp_path / "parted/test").glob("*/*"):
        coloured_picture(COLOURS[file.parent.name], seed=hash(file.name) % 10**6 + 5000).save(file.with_suffix(".png"))
        if file.suffix != ".png":
            file.unlink()
    for _ in range(2):
        divided = divide(tmp_path / "parted")
        assert all(("/test/" in sample.path) == (sample.part == "test") for sample in divided.images.samples)


def test_excluded_pictures_are_left_out(divide: Divide, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("data/red/001.jpg\n")
    divided = divide(exclude=tmp_path / "out.txt")
    assert "001.jpgred" not in parts(divided)
    assert len(divided.images.samples) == len(scan(data, manifest=False).samples) - 1


def test_classes_that_are_new_are_mapped_to_none_of_the_champions_and_none_may_be_gone(colour_bundle: Bundle) -> None:
    labels, data = (*colour_bundle.labels, "violet"), Path("data")
    assert new_classes(labels, colour_bundle, data) == ["violet"]
    with pytest.raises(DataError, match="none of blue"):
        new_classes(labels[1:], colour_bundle, data)
