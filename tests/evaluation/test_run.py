"""Judging a real bundle on real folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lensmith.bundle.format import Bundle
from lensmith.config import EvaluateSettings
from lensmith.data.scan import scan
from lensmith.data.split import assign
from lensmith.errors import DataError, OutputError
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.run import evaluate, evaluate_samples
from lensmith.inference.classifier import load


def run(bundle: Bundle, data: Path, **settings: object) -> Evaluation:
    settings.setdefault("out", data.parent / "evaluation")
    return evaluate(EvaluateSettings.model_validate({"bundle": bundle.path, "data": data, **settings}))


def test_a_bundle_that_knows_the_colours_gets_them_all(colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    found = run(colour_bundle, colours)
    assert found.metrics.accuracy == 1.0
    assert found.metrics.confusion.tolist() == [[8, 0, 0], [0, 8, 0], [0, 0, 8]]
    assert (found.engine, found.precision, found.part) == ("onnxruntime", "fp32", "all")
    assert found.images_per_second > 0
    assert found.latency_ms > 0
    assert sorted(file.name for file in (tmp_path / "evaluation").iterdir()) == ["evaluation.json", "report.html"]
    assert found.report == tmp_path / "evaluation" / "report.html"


def test_the_json_file_says_what_the_result_says(colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    (colours / "blue" / "000.png").rename(colours / "red" / "mislabelled.png")
    for name in ("evaluation.json", "mine.txt"):  # the older one is replaced
        (tmp_path / "evaluation").mkdir(exist_ok=True)
        (tmp_path / "evaluation" / name).write_text("old")
    found = run(colour_bundle, colours)
    assert (tmp_path / "evaluation" / "mine.txt").read_text() == "old"
    stored = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert stored == found.as_dict()
    assert stored["accuracy"] == 23 / 24
    assert stored["confusion"] == [[7, 0, 0], [0, 8, 0], [1, 0, 8]]
    assert [scores["label"] for scores in stored["per_class"]] == ["blue", "green", "red"]
    (mistake,) = stored["mistakes"]
    assert (mistake["label"], mistake["predicted"]) == ("red", "blue")
    assert mistake["path"].endswith("red/mislabelled.png")
    assert mistake["confidence"] > 0.9


def test_classes_are_matched_by_name_not_by_place(colour_bundle: Bundle, colours: Path) -> None:
    shutil.rmtree(colours / "blue")  # green is now the folder's class 0, and the bundle's class 1
    found = run(colour_bundle, colours)
    assert found.metrics.accuracy == 1.0
    assert found.absent == ("blue",)
    assert found.metrics.balanced_accuracy == 1.0


def test_the_threshold_of_the_bundle_is_judged_on_these_images(
    unsure_bundle: Bundle, colour_bundle: Bundle, colours: Path, between: Path
) -> None:
    shutil.copy(between, colours / "red" / "between.png")
    (colours / "blue" / "000.png").rename(colours / "red" / "mislabelled.png")
    found = run(unsure_bundle, colours)
    assert found.as_dict()["abstention"] == {
        "threshold": 0.9, "wanted": 0.95, "precision": 23 / 24, "coverage": 24 / 25, "answers": None,
    }  # fmt: skip
    without = run(colour_bundle, colours)
    assert without.answered is without.as_dict()["abstention"] is None


def test_classes_that_the_bundle_does_not_know_are_named(colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    for number in range(9):
        shutil.copytree(colours / "red", colours / f"x{number}")
    with pytest.raises(DataError, match=r"'x4' \(8 images\) and 4 more\."):
        run(colour_bundle, colours)
    assert not (tmp_path / "evaluation").exists()


def test_unreadable_images_are_named_and_left_out(colour_bundle: Bundle, colours: Path) -> None:
    (colours / "red" / "002.png").write_bytes(b"not a picture")
    (colours / "green" / "003.jpg").write_bytes((colours / "green" / "003.jpg").read_bytes()[:300])
    found = run(colour_bundle, colours)
    assert found.metrics.images == len(found.files) == len(found.truth) == 22
    assert [path for path, _ in found.unreadable] == ["green/003.jpg", "red/002.png"]
    assert found.metrics.accuracy == 1.0


def test_nothing_but_unreadable_images_is_an_error(colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    for file in colours.rglob("*.*"):
        file.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="24"):
        run(colour_bundle, colours)
    assert not (tmp_path / "evaluation").exists()


def with_parts(colours: Path) -> Path:
    """The same pictures as train, val and test: 4, 2 and 2 of each colour."""
    root = colours.parent / "parts"
    for label in ("blue", "green", "red"):
        for number, file in enumerate(sorted((colours / label).iterdir())):
            part = "train" if number < 4 else "val" if number < 6 else "test"
            (root / part / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / part / label)
    return root


def test_the_test_part_is_judged_where_there_is_one(colour_bundle: Bundle, colours: Path) -> None:
    data = with_parts(colours)
    found = run(colour_bundle, data)
    assert (found.part, found.metrics.images) == ("test", 6)
    assert all("/test/" in file.as_posix() for file in found.files)
    assert run(colour_bundle, data, part="val").metrics.images == 6
    assert run(colour_bundle, data, part="all").metrics.images == 24


def test_notes_count_files_that_are_no_images_and_unknown_training_images(colour_bundle: Bundle, colours: Path) -> None:
    (colours / "red" / "empty.png").touch()
    (colours / "red" / "notes.txt").write_text("mine")
    found = run(colour_bundle, colours)
    assert found.metrics.images == 24
    assert "Files that are no images: 2" in found.notes[0]
    assert "flatter" in found.notes[-1]  # the bundle has no image hashes


def test_a_part_that_is_not_there_is_an_error(colour_bundle: Bundle, colours: Path) -> None:
    with pytest.raises(DataError, match="test"):
        run(colour_bundle, colours, part="test")
    shutil.rmtree(with_parts(colours) / "val")
    with pytest.raises(DataError, match="train, test"):
        run(colour_bundle, colours.parent / "parts", part="val")


def test_a_file_in_the_place_of_the_report_is_refused_before_the_work(
    colour_bundle: Bundle, colours: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(OutputError, match="taken"):
            run(colour_bundle, colours, out=out)
    assert (tmp_path / "taken").read_text() == "mine"


def test_judging_writes_nothing_and_keeps_the_probabilities(
    colour_bundle: Bundle, colours: Path, tmp_path: Path
) -> None:
    images = scan(colours)
    before = sorted(tmp_path.rglob("*"))
    found = evaluate_samples(load(colour_bundle.path), images, images.samples[::3], "val")
    assert sorted(tmp_path.rglob("*")) == before
    assert found.part == "val"
    assert found.report is None
    assert found.probabilities.dtype == np.float32
    assert found.probabilities.shape == (8, 3)
    assert found.fingerprint == images.fingerprint
    found.truth[:] = (found.truth + 1) % 3
    assert len(found.mistakes()) == 8
    assert (np.diff(found.probabilities[found.mistakes()].max(axis=1)) <= 0).all()


def test_the_test_part_of_a_split_on_the_fly_is_found_again(
    colour_bundle: Bundle, colours: Path, tmp_path: Path
) -> None:
    divided = assign(scan(colours), (5, 3, 2), 7)
    dataset = {"fingerprint": divided.fingerprint, "parts": {"train": 12, "val": 6, "test": 6}}
    changes = {"recipe": {"split": [5, 3, 2], "seed": 7}, "dataset": dataset}
    folder = Path(shutil.copytree(colour_bundle.path, tmp_path / "bundle"))
    content = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**content, **changes}))
    found = evaluate(EvaluateSettings(bundle=folder, data=colours, out=tmp_path / "report"))
    assert found.part == "test"
    assert found.metrics.images == len(divided.part("test"))
    (colours / "red" / "photo.jpg").write_bytes(b"\0\0\0\x18ftypheic")  # was there in training, too, and left out
    again = evaluate(EvaluateSettings(bundle=folder, data=colours, out=tmp_path / "report"))
    assert (again.part, again.files, again.unreadable) == ("test", found.files, ())
    (colours / "red" / "000.png").unlink()
    assert evaluate(EvaluateSettings(bundle=folder, data=colours, out=tmp_path / "report")).part == "all"


def test_classes_are_matched_with_the_bundles_by_what_can_be_seen(colour_bundle: Bundle, colours: Path) -> None:
    (colours / "red").rename(colours / " red\u200b")
    assert run(colour_bundle, colours).metrics.accuracy == 1
    (colours / " red\u200b").rename(colours / "Red")
    with pytest.raises(DataError, match=r"'Red' \(8 images\), which only looks like .*'Red' \(U\+0052\)"):
        run(colour_bundle, colours)


@pytest.mark.parametrize("name", ["report.html", "figures.JSON"])
def test_a_report_named_like_a_file_is_refused_and_nothing_written(
    colour_bundle: Bundle, colours: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(OutputError, match="named like a file"):
        run(colour_bundle, colours, out=tmp_path / name)
    assert not (tmp_path / name).exists()


def test_images_that_annotators_contest_are_left_out_and_named(
    colour_bundle: Bundle, colours: Path, tmp_path: Path
) -> None:
    files = sorted(file.relative_to(colours).as_posix() for file in colours.glob("*/*.*"))
    lines = [f"{file},{file.split('/')[0]},anna" for file in files] + [f"{files[0]},red,bert", f"{files[1]},blue,bert"]
    (colours / "votes.csv").write_text("\n".join(["path,label,annotator", *lines]) + "\n", encoding="utf-8")
    found = run(colour_bundle, colours / "votes.csv", out=tmp_path / "report")
    assert found.metrics.images == len(files) - 1
    described = json.loads((tmp_path / "report/evaluation.json").read_text(encoding="utf-8"))
    assert [each["path"] for each in described["contested"]] == [files[0]]
    assert any(f"do not agree: 1 ({files[0]})" in note for note in described["notes"])
    assert not any("no images" in note for note in described["notes"])
    assert f"do not agree: 1 ({files[0]})" in (tmp_path / "report/report.html").read_text(encoding="utf-8")
