"""Many images into one table: every format, every input, and nothing half-written."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import lensmith
from lensmith.bundle.format import Bundle
from lensmith.config import PredictSettings
from lensmith.errors import DataError, OutputError, SettingsError
from lensmith.inference.batch import Predicted, predict
from lensmith.inference.classifier import Classifier, Prediction, load


def run(bundle: Bundle, *images: object, stream: io.StringIO | None = None, **settings: object) -> Predicted:
    names = [str(image) for image in images]
    return predict(PredictSettings.model_validate({"bundle": bundle.path, "images": names, **settings}), stream)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def damaged(colours: Path) -> Path:
    """The colours, with one picture of each kind of damage."""
    (colours / "blue" / "001.jpg").write_bytes(b"not a picture")
    (colours / "red" / "000.png").write_bytes(b"")
    return colours


# Formats


def test_csv_has_a_row_for_each_image_in_order(colour_bundle: Bundle, damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    made = run(colour_bundle, damaged, out=out)
    assert (made.images, made.unreadable, made.out, made.predictions) == (24, 2, out, None)
    assert made.images_per_second > 0
    rows = rows_of(out)
    assert list(rows[0]) == ["path", "label", "class_id", "confidence", "abstained", "error"]
    assert {row["abstained"] for row in rows} == {"false"}
    assert [row["path"] for row in rows] == [str(file) for file in sorted(damaged.rglob("*.*"))]
    for row in rows:
        if row["error"]:
            assert row["label"] == row["class_id"] == row["confidence"] == ""
        else:
            assert row["label"] == Path(row["path"]).parent.name
            assert row["class_id"] == str(["blue", "green", "red"].index(row["label"]))
            assert 0.9 < float(row["confidence"]) <= 1
    refused = [Path(row["path"]).name for row in rows if row["error"]]
    assert refused == ["001.jpg", "000.png"]


def test_csv_names_further_classes_in_further_columns(colour_bundle: Bundle, damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    run(colour_bundle, damaged, out=out, top_k=9)  # there are three
    rows = rows_of(out)
    assert list(rows[0])[6:] == ["label_2", "confidence_2", "label_3", "confidence_3"]
    expected = load(colour_bundle.path).predict(damaged / "blue" / "000.png")[0].top
    for place, ranked in zip(("", "_2", "_3"), expected, strict=True):
        assert rows[0][f"label{place}"] == ranked.label
        assert np.float32(rows[0][f"confidence{place}"]) == ranked.confidence  # to the last bit
    assert rows[1]["error"]
    assert rows[1]["label_3"] == ""


def test_json_lines_are_the_predictions(colour_bundle: Bundle, damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    run(colour_bundle, damaged, out=out, top_k=2)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    expected = load(colour_bundle.path).predict(sorted(damaged.rglob("*.*")), top_k=2)
    assert found == [answer.as_dict() for answer in expected]


@pytest.mark.parametrize("group", [5, 24])
def test_parquet_reads_back_typed(
    colour_bundle: Bundle, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr("lensmith.inference.batch.PARQUET_ROWS", group)
    out = tmp_path / "answers.parquet"
    run(colour_bundle, damaged, out=out, top_k=2)
    assert pq.ParquetFile(out).num_row_groups == -(-24 // group)
    table = pq.read_table(out)
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("path", "string"), ("label", "string"), ("class_id", "int32"), ("confidence", "float"), ("abstained", "bool"),
        ("error", "string"), ("label_2", "string"), ("confidence_2", "float"),
    ]  # fmt: skip
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == [str(file) for file in sorted(damaged.rglob("*.*"))]
    assert rows[0]["label"] == "blue"
    assert rows[0]["error"] is None
    assert rows[1]["label"] is None
    assert rows[1]["confidence_2"] is None


@pytest.mark.parametrize(
    ("name", "settings", "start"),
    [
        ("x.txt", {"format": "jsonl"}, b'{"path"'), ("x", {"format": "csv"}, b"path,"), ("x.CSV", {}, b"path,"),
        ("x.ndjson", {}, b'{"path"'), ("x.JSONL", {}, b'{"path"'),
    ],
)  # fmt: skip
def test_the_format_is_that_of_the_setting_then_of_the_suffix(
    colour_bundle: Bundle, colours: Path, tmp_path: Path, name: str, settings: dict[str, str], start: bytes
) -> None:
    run(colour_bundle, colours, out=tmp_path / name, **settings)
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("x.xlsx", {}), ("x", {}), ("x.csv.gz", {}), ("x.csv", {"format": "parquet"}), ("x.parquet", {"format": "csv"})],
)
def test_an_ending_that_is_not_that_of_the_format_is_refused_and_nothing_written(
    colour_bundle: Bundle, colours: Path, tmp_path: Path, name: str, settings: dict[str, str]
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SettingsError, match=name):
        run(colour_bundle, colours, out=tmp_path / "out" / name, **settings)
    assert not list((tmp_path / "out").iterdir())


def test_images_of_which_none_can_be_read_are_refused_and_an_older_table_stays(
    colour_bundle: Bundle, damaged: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("older")
    with pytest.raises(DataError, match=r"None of 2 can be.*missing\.jpg: .*[^.]\. Name files"):
        run(colour_bundle, tmp_path / "missing.jpg", damaged / "red/000.png", out=tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "older"
    with pytest.raises(DataError):
        run(colour_bundle, tmp_path / "missing.jpg")


@pytest.mark.parametrize("name", ["answers.csv", "answers.parquet"])
def test_a_guess_stands_in_its_row_and_is_marked(
    unsure_bundle: Bundle, between: Path, damaged: Path, tmp_path: Path, name: str
) -> None:
    made = run(unsure_bundle, damaged / "red/001.jpg", between, damaged / "red/000.png", out=tmp_path / name)
    assert (made.images, made.unreadable, made.abstained) == (3, 1, 1)
    if name.endswith("csv"):
        rows = [{**row, "abstained": json.loads(row["abstained"])} for row in rows_of(tmp_path / name)]
    else:
        rows = pq.read_table(tmp_path / name).to_pylist()
    assert [(row["label"] or None, row["abstained"]) for row in rows] == [
        ("red", False),
        ("green", True),
        (None, False),
    ]
    assert 0.5 < float(rows[1]["confidence"]) < 0.9


# Where rows go


def test_rows_go_to_a_stream_but_no_parquet(colour_bundle: Bundle, colours: Path) -> None:
    stream = io.StringIO()
    made = run(colour_bundle, colours, stream=stream)
    assert made.out is made.predictions is None
    assert stream.getvalue().count("\n") == 25
    assert "\r" not in stream.getvalue()
    with pytest.raises(SettingsError, match="--out"):
        run(colour_bundle, colours, stream=stream, format="parquet")


def test_without_file_and_stream_the_answers_are_in_the_result(colour_bundle: Bundle, damaged: Path) -> None:
    made = lensmith.predict(colour_bundle.path, damaged)
    assert len(made.predictions) == 24
    assert made.predictions[0].label == "blue"
    assert json.loads(json.dumps(made.as_dict()))["predictions"][1]["error"]


# Inputs


def test_files_and_folders_keep_the_order_in_which_they_are_named(
    colour_bundle: Bundle, colours: Path, tmp_path: Path
) -> None:
    first = colours / "red" / "005.jpg"
    (colours / "green" / "deeper").mkdir()
    shutil.copy(first, colours / "green" / "deeper" / "UPPER.JPG")
    (colours / "green" / "notes.txt").write_text("no picture")
    (colours / "green" / ".cache").mkdir()
    for hidden in (".hidden.png", ".cache/thumbnail.png"):
        (colours / "green" / hidden).write_text("no picture")
    made = run(colour_bundle, first, colours / "green", first)
    paths = [Path(answer.path) for answer in made.predictions]
    assert paths[0] == paths[-1] == first
    assert paths[1:-1] == [*sorted(colours.glob("green/0*")), colours / "green/deeper/UPPER.JPG"]


def test_small_copies_of_network_storage_are_left_out_and_counted(
    colour_bundle: Bundle, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in sorted(colours.glob("red/*.png")):
        (file.parent / "@eaDir" / file.name).mkdir(parents=True)
        shutil.copy(file, file.parent / "@eaDir" / file.name / "SYNOPHOTO_THUMB_S.png")
    assert run(colour_bundle, colours / "red").images == 8
    assert "4 in @eaDir" in capsys.readouterr().err


def test_a_missing_path_is_a_row_and_not_a_stop(colour_bundle: Bundle, colours: Path) -> None:
    made = run(colour_bundle, colours / "none.png", colours / "red" / "001.jpg")
    assert (made.images, made.unreadable) == (2, 1)
    assert "No such file" in made.predictions[0].error
    assert made.predictions[1].label == "red"


def test_paths_come_from_standard_input(colour_bundle: Bundle, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = f"{colours}/red/001.jpg\n\n{colours}/red\nnone.png\r\n{colours}/blue/002.png"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    made = run(colour_bundle, colours / "green" / "000.png", "-")
    assert [answer.label for answer in made.predictions] == ["green", "red", None, None, "blue"]


def test_an_empty_standard_input_is_an_empty_table(
    colour_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for name in ("answers.csv", "answers.parquet"):
        assert run(colour_bundle, "-", out=tmp_path / name).images == 0
    assert (tmp_path / "answers.csv").read_text() == "path,label,class_id,confidence,abstained,error\n"
    assert pq.read_table(tmp_path / "answers.parquet").num_rows == 0


def test_a_folder_without_images_is_an_error(colour_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=tmp_path.name):
        run(colour_bundle, tmp_path, out=tmp_path / "answers.csv")
    assert not (tmp_path / "answers.csv").exists()


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="these file systems hold text names only")
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
def test_a_name_that_is_no_text_is_written_readably(
    colour_bundle: Bundle, colours: Path, tmp_path: Path, name: str
) -> None:
    (colours / "red" / "000.png").rename(colours / "red" / os.fsdecode(b"caf\xe9.png"))
    made = run(colour_bundle, colours, out=tmp_path / name)
    assert made.unreadable == 0
    content = (tmp_path / name).read_bytes()
    assert (b"caf\\udce9" if name.endswith("jsonl") else rb"caf\xe9.png") in content


# A file is whole or not there


@pytest.mark.parametrize("name", ["answers.csv", "answers.parquet"])
def test_what_is_interrupted_leaves_the_older_file_and_nothing_else(
    colour_bundle: Bundle, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = Classifier.stream

    def broken(self: Classifier, paths: Iterator[Path], top_k: int) -> Iterator[Prediction]:
        yield from islice(whole(self, paths, top_k), 10)
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "stream", broken)
    out = tmp_path / "results" / name
    out.parent.mkdir()
    out.write_text("older")
    with pytest.raises(KeyboardInterrupt):
        run(colour_bundle, colours, out=out)
    assert list(out.parent.iterdir()) == [out]
    assert out.read_text() == "older"


def test_a_link_stays_a_link(colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    run(colour_bundle, colours, out=tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert len(rows_of(tmp_path / "real.csv")) == 24


@pytest.mark.parametrize("out", ["folder", "/dev/null"])
def test_a_folder_or_device_is_not_replaced(colour_bundle: Bundle, colours: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        run(colour_bundle, colours, out=tmp_path / out)
    assert not Path("/dev/null").is_file()


def test_links_to_folders_are_followed_once(colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "colours").symlink_to(colours)
    (colours / "circle").symlink_to(tmp_path / "linked")
    assert run(colour_bundle, tmp_path / "linked").images == 24
    (colours / "another").symlink_to("red")  # a folder's images have its own name, not that of a link to it
    os.mkfifo(colours / "red/pipe.png")
    paths = {prediction.path for prediction in run(colour_bundle, colours).predictions or ()}
    assert len(paths) == 24
    assert not any("another" in path for path in paths)
