"""Manifests of annotation sources: what is written, and what is refused before anything is."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures.annotated_pictures import restore
from fixtures.command_line import Run
from lensmith.config import ImportSettings
from lensmith.config.values import ANNOTATION_FORMATS
from lensmith.data.annotations.registry import READERS
from lensmith.data.import_annotations import ImportResult, import_annotations
from lensmith.data.scan import scan
from lensmith.errors import DataError, LensmithError, OutputError, SettingsError

FILES = Path(__file__).parent / "annotations/files"


def imported(source: Path, out: Path, **settings: Any) -> ImportResult:
    return import_annotations(ImportSettings(source=source, out=out, **settings))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return restore(FILES / "labels-cvat", tmp_path / "photos")


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    return restore(FILES / "boxes-yolo", tmp_path / "photos")


def test_every_reader_has_its_name_in_the_setting() -> None:
    assert ("auto", *(reader.name for reader in READERS)) == ANNOTATION_FORMATS
    described = ImportSettings.model_fields["format"].description or ""
    assert all(f"{name}," in described or f"{name}." in described for name in ANNOTATION_FORMATS[1:])


def test_the_manifest_is_the_set_that_a_direct_scan_gives(labelled: Path, tmp_path: Path) -> None:
    done = imported(labelled, tmp_path / "lists/labels.csv")
    assert (done.written, done.annotations) == (True, 12)
    assert [each.path for each in done.contested] == ["images/both.jpg"]
    direct, read = scan(labelled), scan(done.manifest)

    def facts(images: Any) -> set[tuple[str, str, str | None]]:
        root = images.root
        return {((root / s.path).resolve().as_posix(), images.labels[s.label], s.part) for s in images.samples}

    assert facts(direct) == facts(read)
    assert done.counts == direct.counts() == read.counts()
    assert done.unlabelled == ("images/blank.jpg", "images/one/nothing.jpg")
    assert [row["path"] for row in rows(tmp_path / "lists/labels-unlabelled.csv")] == [
        "../photos/images/blank.jpg", "../photos/images/one/nothing.jpg",
    ]  # fmt: skip
    assert not imported(labelled, done.manifest).written


def test_crops_are_cut_when_read_or_written_as_files_with_the_same_pixels(boxed: Path, tmp_path: Path) -> None:
    lazy = imported(boxed, tmp_path / "lazy.csv", margin=0.25)
    written = imported(boxed, tmp_path / "written.csv", margin=0.25, crops=tmp_path / "crops")
    assert (tmp_path / "crops/obj_train_data/two/a b#2.png").is_file()
    assert lazy.counts == written.counts
    assert [row["group"] for row in rows(lazy.manifest)] == [row["group"] for row in rows(written.manifest)]
    with Image.open(tmp_path / "crops/obj_train_data/one/grün#1.png") as crop:
        assert crop.size == (12, 12)  # 8 × 8 with a quarter more on each side
    assert {len(set(scan(each).samples)) for each in (lazy.manifest, written.manifest)} == {13}


def refused(call: Callable[[], object], error: type[LensmithError]) -> str:
    with pytest.raises(error) as raised:
        call()
    return str(raised.value)


def test_labels_of_other_classes_are_named_and_nothing_is_written(labelled: Path, tmp_path: Path) -> None:
    said = refused(lambda: imported(labelled, tmp_path / "x.csv", classes="cat, dog"), DataError)
    assert "'Käfer 虫' (2)" in said
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photos"]
    assert imported(labelled, tmp_path / "x.csv", classes=("cat", "dog", "Käfer 虫", "bird")).written


def test_another_manifest_or_a_full_folder_of_crops_is_not_replaced(boxed: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,label\n")
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops/mine.txt").touch()
    assert "--overwrite" in refused(lambda: imported(boxed, tmp_path / "x.csv"), OutputError)
    refused(lambda: imported(boxed, tmp_path / "y.csv", crops=tmp_path / "crops"), OutputError)
    assert not (tmp_path / "y.csv").exists()
    assert imported(boxed, tmp_path / "x.csv", overwrite=True).written
    assert "labels.csv" in refused(lambda: imported(boxed, tmp_path / "labels"), SettingsError)


def test_a_disk_that_fails_leaves_neither_manifest_nor_list_nor_crops(boxed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "m.csv"
    (tmp_path / "out" / "m-unlabelled.csv" / "in the way").mkdir(parents=True)
    with pytest.raises((OSError, OutputError)):
        import_annotations(ImportSettings(source=boxed, out=out, crops=tmp_path / "crops"))
    shutil.rmtree(tmp_path / "out" / "m-unlabelled.csv")
    (tmp_path / "out" / "m-unlabelled.csv").write_text("somebody's\n")
    with pytest.raises(OutputError, match="m-unlabelled"):
        import_annotations(ImportSettings(source=boxed, out=out))
    assert not out.exists()
    assert not (tmp_path / "crops").exists()


def test_crops_of_whole_pictures_an_archive_and_nothing_are_refused(labelled: Path, tmp_path: Path) -> None:
    refused(lambda: imported(labelled, tmp_path / "x.csv", crops=tmp_path / "crops"), DataError)
    refused(lambda: imported(tmp_path / "gone", tmp_path / "x.csv"), DataError)
    archive = Path(shutil.make_archive(str(tmp_path / "task"), "zip", labelled))
    assert "zip archive" in refused(lambda: imported(archive, tmp_path / "x.csv"), DataError)
    assert "zip archive" in refused(lambda: scan(archive), DataError)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photos", "task.zip"]


def test_a_manifest_of_crops_lists_their_pictures_and_goes_before_the_annotations(boxed: Path) -> None:
    before = scan(boxed)
    imported(boxed, boxed / "splits.csv")
    images = scan(boxed)
    assert images.samples == before.samples
    assert any("Read from the manifest" in note for note in images.notes)
    assert any("does not list, and that are left out: 3." in note for note in images.notes)  # those without a box


def test_the_command_prints_classes_and_lists_and_one_object_with_json(
    labelled: Path, tmp_path: Path, run: Run
) -> None:
    code, out, _ = run("data", "import", labelled, tmp_path / "labels.csv", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["counts"]["cat"] == {"train": 3, "test": 1}
    assert (result["unlabelled_list"], result["missing"]) == (str(tmp_path / "labels-unlabelled.csv"), [])
    code, said, _ = run("data", "import", labelled, tmp_path / "labels.csv")
    assert code == 0
    assert "was there already, the same" in said
    assert "Images without a label: 2" in said
    code, out, err = run("data", "import", labelled, tmp_path / "x.csv", "--classes", "cat")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
