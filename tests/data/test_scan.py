"""Layouts read, what is set aside and why, and the words for what cannot be read at all."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lensmith.data.scan import scan
from lensmith.errors import DataError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\xff\xd8 not decoded by scan")
    return root


def reasons(root: Path) -> dict[str, str]:
    return dict(scan(root).set_aside)


def test_class_folders_are_labels_in_code_point_order_whatever_the_files_order(tmp_path: Path) -> None:
    fill(tmp_path, "b/1.jpg", "a/2.png", "B/3.webp", "ä/grouped/only/4.gif")
    images = scan(tmp_path)
    assert images.labels == ("B", "a", "b", "ä")
    found = [(sample.path, images.labels[sample.label]) for sample in images.samples]
    assert found == [("B/3.webp", "B"), ("a/2.png", "a"), ("b/1.jpg", "b"), ("ä/grouped/only/4.gif", "ä")]
    assert images.parts == ()
    assert images.counts() == {"B": {"all": 1}, "a": {"all": 1}, "b": {"all": 1}, "ä": {"all": 1}}


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "validation", "TEST")])
def test_part_folders_are_parts_by_their_usual_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    fill(tmp_path, *(f"{name}/{label}/{name}.jpg" for name in names for label in ("cat", "dog")))
    images = scan(tmp_path)
    assert images.labels == ("cat", "dog")
    assert images.parts == ("train", "val", "test")
    assert images.counts()["cat"] == {"train": 1, "val": 1, "test": 1}


def test_what_lies_beside_part_folders_is_named_not_used(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "test/loose.jpg", "extra/cat/3.jpg", "top.jpg", "labels.txt")
    assert reasons(tmp_path) == {
        "extra/cat/3.jpg": "in a folder beside train, val and test",
        "labels.txt": "not an image (.txt)",
        "test/loose.jpg": "in no class folder",
        "top.jpg": "in no class folder",
    }


@pytest.mark.parametrize(
    ("names", "labels", "parts"),
    [
        (("train/1.jpg", "bus/2.jpg", "test/3.jpg"), ("bus", "test", "train"), ()),  # images lie directly in them
        (("val/cat/1.jpg", "test/cat/2.jpg", "test/dog/3.jpg"), ("cat", "dog"), ("val", "test")),
    ],
)
def test_train_and_test_are_parts_if_they_hold_folders(
    tmp_path: Path, names: tuple[str, ...], labels: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    images = scan(fill(tmp_path, *names))
    assert (images.labels, images.parts) == (labels, parts)


def test_hidden_files_are_not_looked_at_and_others_are_set_aside_with_the_reason(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "dog/1.jpg", "cat/.DS_Store", ".git/x/1.jpg", ".lensmith-fetch.json")
    fill(tmp_path, "cat/notes.txt", "dog/noending", "loose.png")
    (tmp_path / "cat/empty.jpg").touch()
    (tmp_path / "dog/gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "dog/pipe.jpg")
    assert reasons(tmp_path) == {
        "cat/empty.jpg": "empty",
        "cat/notes.txt": "not an image (.txt)",
        "dog/gone.jpg": "a link to nothing",
        "dog/noending": "not an image (no ending)",
        "dog/pipe.jpg": "not a file",
        "loose.png": "in no class folder",
    }
    assert len(scan(tmp_path).samples) == 2


def test_links_between_folders_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    fill(tmp_path / "set", "cat/1.jpg", "dog/2.jpg")
    fill(tmp_path, "elsewhere/3.jpg")
    (tmp_path / "set/cat/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/cat/up").symlink_to("..")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "set/cat")
    images = scan(tmp_path / "set")
    assert [sample.path for sample in images.samples] == ["cat/1.jpg", "cat/more/3.jpg", "dog/2.jpg"]
    assert images.set_aside == (
        ("cat/more/back", "a link to a folder around it"), ("cat/up", "a link to a folder around it"),
    )  # fmt: skip


def test_a_folder_without_rights_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "cat/1.jpg", "dog/2.jpg", "locked/3.jpg")
    iterdir = Path.iterdir

    def guarded(folder: Path) -> Iterator[Path]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", guarded)
    assert reasons(tmp_path) == {"locked": "cannot be opened (Permission denied)"}


def test_a_name_that_is_not_utf8_is_set_aside_printably(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "dog/2.jpg")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "cat") + b"/\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert reasons(tmp_path) == {r"cat/\udcff.jpg": "its name is not UTF-8"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "It is empty."),
        (("1.jpg", "2.jpg"), "2 in no class folder"),
        (("cat/readme.txt",), "1 not an image (.txt)"),
        (("cat/1.jpg",), "'cat'"),
        (("photos/cat/1.jpg", "photos/dog/2.jpg"), "{root}/photos instead"),
        (("a/b/cat/1.jpg", "a/b/dog/2.jpg"), "{root}/a/b instead"),
        (("a/train/cat/1.jpg", "a/test/cat/2.jpg"), "{root}/a instead"),
    ],
)
def test_folders_that_are_no_set_are_refused_with_what_lies_there(
    tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(DataError) as refused:
        scan(fill(tmp_path, *names))
    assert said.format(root=tmp_path) in str(refused.value)
    with pytest.raises(DataError, match="missing"):
        scan(tmp_path / "missing")


def table(root: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    (root / name).write_text(text, encoding=encoding)
    return root / name


def test_a_csv_names_paths_relative_to_itself_or_absolute_in_any_column_order(tmp_path: Path) -> None:
    fill(tmp_path, "x/1.jpg", "x/2.jpg")
    away = fill(tmp_path.parent / f"{tmp_path.name}-away", "3")
    text = f" Label ,Split,path,note\ncat ,train,x/1.jpg,a\ndog,valid,x/../x/2.jpg,b\ndog,test,{away}/3,c\n"
    images = scan(table(tmp_path, text, encoding="utf-8-sig"))
    assert images.labels == ("cat", "dog")
    assert {sample.path: sample.part for sample in images.samples} == {
        "x/1.jpg": "train", "x/2.jpg": "val", f"{away}/3": "test",
    }  # fmt: skip
    assert all(images.file(sample).is_file() for sample in images.samples)


def test_lines_of_a_csv_that_cannot_be_used_are_set_aside_by_number(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{number}.jpg" for number in range(1, 8)))
    (tmp_path / "e.jpg").touch()
    lines = (
        "path,label,split", "1.jpg,cat,train", "2.jpg,dog,test", "./1.jpg,cat,train", "gone.jpg,cat,train",
        "e.jpg,cat,train", "3.jpg,,train", "4.jpg,cat,fold3", "5.jpg,cat,", "6.jpg,cat,train", "6.jpg,dog,train",
        "7.jpg",
    )  # fmt: skip
    images = scan(table(tmp_path, "\n".join(lines)))
    assert [sample.path for sample in images.samples] == ["1.jpg", "2.jpg"]
    assert images.set_aside == (
        ("1.jpg", "named before (line 4)"),
        ("3.jpg", "path or label is empty (line 7)"),
        ("4.jpg", "its split 'fold3' is none of train, val, test (line 8)"),
        ("5.jpg", "it has no split, though other lines have one (line 9)"),
        ("6.jpg", "named more than once, as cat and as dog (lines 10, 11)"),
        ("7.jpg", "path or label is empty (line 12)"),
        ("e.jpg", "empty (line 6)"),
        ("gone.jpg", "there is no such file (line 5)"),
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"file;klasse\n1.jpg;cat\n", "file;klasse"),
        (b"", "path,label"),
        ("path,label\n1.jpg,k\xe4tzchen\n".encode("latin-1"), "UTF-8"),
        (b"PK\x03\x04\xff\xfe", "an archive must be unpacked first"),
        (b'path,label\n"' + b"x" * 200_000 + b'",cat\n', "field larger than field limit"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "set.csv").write_bytes(content)
    with pytest.raises(DataError) as refused:
        scan(tmp_path / "set.csv")
    assert said in str(refused.value)


def test_a_manifest_wins_over_the_folders_and_what_it_does_not_name_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "dog/new.jpg")
    table(tmp_path, "path,label,split\ncat/1.jpg,cat,train\ncat/2.jpg,cat,val\ndog/3.jpg,dog,train\n", "splits.csv")
    images = scan(tmp_path)
    assert images.counts() == {"cat": {"train": 1, "val": 1}, "dog": {"train": 1}}
    assert "left out: 1." in images.notes[1]
    assert scan(tmp_path, manifest=False).counts() == {"cat": {"all": 2}, "dog": {"all": 2}}


def test_the_fingerprint_changes_with_the_data_only(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "dog/2.jpg")
    before = scan(tmp_path).fingerprint
    assert scan(tmp_path).fingerprint == before
    (tmp_path / "cat/1.jpg").write_bytes(b"longer than it was before this line")
    assert scan(tmp_path).fingerprint != before


def test_the_table_of_a_run_names_its_images_where_they_are(tmp_path: Path) -> None:
    data, run = fill(tmp_path / "photos", "a/1.jpg", "a/2.jpg", "b/1.jpg"), tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    (run / "splits.csv").write_text("path,label,split,bytes\na/1.jpg,a,train,9\na/2.jpg,a,test,9\nb/1.jpg,b,val,9\n")
    (run / "run.json").write_text(json.dumps({"data": {"root": str(data)}}))
    (run / "curves.png").write_bytes(b"a plot")
    for source in (run / "splits.csv", run):
        images = scan(source)
        assert images.root == data
        assert [(sample.path, sample.part) for sample in images.samples] == [
            ("a/1.jpg", "train"), ("a/2.jpg", "test"), ("b/1.jpg", "val"),
        ]  # fmt: skip
        assert not images.set_aside
        assert not any("not used" in note for note in images.notes)
    (run / "run.json").write_text("{}")
    with pytest.raises(DataError, match=r"run\.json"):
        scan(run / "splits.csv")


def test_names_of_classes_that_nobody_can_tell_apart_are_one_class_and_said(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "cat /2.jpg", "caf\u00e9/3.jpg", "cafe\u0301/4.jpg", "dog\u200b/5.jpg", "\u200b/6.jpg")
    images = scan(tmp_path)
    assert images.counts() == {"caf\u00e9": {"all": 2}, "cat": {"all": 2}, "dog": {"all": 1}}
    assert "U+0301 COMBINING ACUTE ACCENT" in images.warnings[0]
    assert "'cat ' (U+0020 SPACE)" in images.warnings[1]
    assert r"dog\u200b" in images.notes[0]
    assert images.set_aside == (("\u200b/6.jpg", "the name of its class shows no character"),)


def test_names_of_classes_that_look_alike_are_refused_in_folders_parts_and_tables(tmp_path: Path) -> None:
    fill(tmp_path / "folders", "Cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    fill(tmp_path / "parts", "train/Cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "val/dog/4.jpg")
    fill(tmp_path, "1.jpg", "2.jpg")
    for source in (
        tmp_path / "folders",
        tmp_path / "parts",
        table(tmp_path, "path,label\n1.jpg,c\u0430t\n2.jpg,cat\n"),
    ):
        with pytest.raises(DataError, match="look alike"):
            scan(source)


def test_files_of_systems_and_programs_are_left_out_and_counted_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "dog/2.jpg", "cat/@eaDir/1.jpg/THUMB_S.jpg", "cat/@eaDir/1.jpg/THUMB_M.jpg")
    fill(tmp_path, "@eaDir/3.jpg", "__MACOSX/cat/._1.jpg", "cat/._1.jpg", "Thumbs.db", "#recycle/cat/4.jpg")
    fill(
        tmp_path, "$RECYCLE.BIN/5.jpg", "System Volume Information/6.jpg", ".Trash-1000/files/7.jpg", "lost+found/8.jpg"
    )
    fill(tmp_path, "dog/.ipynb_checkpoints/2-checkpoint.jpg", "dog/.thumbnails/2.jpg", "dog/desktop.ini")
    fill(tmp_path, "Trips Previews.lrdata/9.jpg", "dog/.@__thumb/2.jpg", "found.000/10.jpg")
    fill(tmp_path, "dog/_vti_cnf/2.jpg", "dog/Thumbs/2.jpg", "dog/thumbnails/2.jpg")
    images = scan(tmp_path)
    assert [sample.path for sample in images.samples] == ["cat/1.jpg", "dog/2.jpg"]
    assert images.set_aside == ()
    assert dict(images.junk) == {
        "#recycle": 1, "$RECYCLE.BIN": 1, "._*": 1, ".@__thumb": 1, ".Trash-1000": 1, ".ipynb_checkpoints": 1,
        ".thumbnails": 1, "@eaDir": 3, "System Volume Information": 1, "Thumbs.db": 1, "Trips Previews.lrdata": 1,
        "__MACOSX": 1, "desktop.ini": 1, "found.000": 1, "lost+found": 1,
        "_vti_cnf": 1, "Thumbs": 1, "thumbnails": 1,
    }  # fmt: skip
    assert "3 in @eaDir" in images.notes[0]


@pytest.mark.parametrize(
    "results",
    [
        ("runs/one/run.json", "runs/one/splits.csv", "runs/one/curves.png", "runs/one/memory.png"),
        ("model/bundle.json", "model/golden.npz", "model/confusion.png"),
        ("evaluation/evaluation.json", "evaluation/report.html", "evaluation/roc.png"),
        ("mlruns/0/abc/artifacts/curves.png",),
        ("cache/CACHEDIR.TAG", "cache/pixels.png"),
    ],
)
def test_results_and_caches_among_the_images_are_no_class(tmp_path: Path, results: tuple[str, ...]) -> None:
    images = scan(fill(tmp_path, "cat/1.jpg", "dog/2.jpg", *results))
    assert images.labels == ("cat", "dog")
    assert sum(count for _, count in images.junk) == len(results)


def test_each_file_in_a_folder_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "dog/2.jpg")
    try:
        fill(tmp_path, os.fsdecode(b"\xff/1.jpg"), os.fsdecode(b"\xff/more/2.jpg"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    reason = "the name of its folder is not UTF-8"
    assert reasons(tmp_path) == {r"\udcff/1.jpg": reason, r"\udcff/more/2.jpg": reason}
    assert [warning.rpartition(": ")[2] for warning in scan(tmp_path).warnings] == [
        r"2 (\udcff/1.jpg, \udcff/more/2.jpg)."
    ]


def test_folders_without_an_image_are_named_since_they_are_no_classes(tmp_path: Path) -> None:
    fill(tmp_path / "plain", "cat/1.jpg", "dog/deeper/2.jpg", "labels/1.txt")
    (tmp_path / "plain/bird").mkdir()
    assert "no classes: bird, labels." in scan(tmp_path / "plain").warnings[0]
    fill(tmp_path / "parts", "train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg")
    (tmp_path / "parts/test/bird").mkdir()
    assert "no classes: test/bird." in scan(tmp_path / "parts").warnings[0]


def test_tables_beside_the_folders_are_said_not_to_be_read(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "dog/2.jpg", "dog/notes.csv")
    table(tmp_path, "path,label\n", "train.csv")
    (warning,) = scan(tmp_path).warnings
    assert "not read: train.csv." in warning
    (tmp_path / "train.csv").rename(tmp_path / "splits.csv")
    assert scan(tmp_path, manifest=False).warnings == ()
