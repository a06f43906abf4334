"""Tables as spreadsheets and annotation tools write them: read as they are meant, or refused with the reason."""

import codecs
from pathlib import Path

import pytest

from lensmith.data.scan import scan
from lensmith.errors import DataError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\xff\xd8 not decoded by scan")
    return root


def read(root: Path, content: str | bytes) -> dict[str, str]:
    """Path → label of a table in a folder."""
    (root / "table.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    images = scan(root / "table.csv")
    return {sample.path: images.labels[sample.label] for sample in images.samples}


@pytest.mark.parametrize(
    "content",
    [
        "path,label\na/1.jpg,cat\nb/2.jpg,dog\n",
        codecs.BOM_UTF8 + b"path,label\r\na/1.jpg,cat\r\nb/2.jpg,dog\r\n",
        "path;label\na/1.jpg;cat\nb/2.jpg;dog\n",
        "path\tlabel\na/1.jpg\tcat\nb/2.jpg\tdog\n",
        "path|label\na/1.jpg|cat\nb/2.jpg|dog\n",
        "filename,class\na/1.jpg,cat\nb/2.jpg,dog\n",
        "Image,Target,width\na/1.jpg,cat,3\nb/2.jpg,dog,4\n",
        "File Path,Class-Name\na/1.jpg,cat\nb/2.jpg,dog\n",
        '"image_path","category"\n"a/1.jpg","cat"\n"b/2.jpg","dog"\n',
        '"path", "label"\n"a/1.jpg", "cat"\n"b/2.jpg", "dog"\n',
        "path,label\n a/1.jpg , cat\u00a0\n./b/2.jpg,\ufeffdog\n",
        "path,label\na\\1.jpg,cat\nb\\2.jpg,dog\n",
        "path,label\n\na/1.jpg,cat\n,\nb/2.jpg,dog\n\n",
        b"path,label\ttsv,tab\tx\n".replace(b"path,label\ttsv,tab\tx\n", b"path,label\na/1.jpg,cat\nb/2.jpg,dog"),
        "path\tlabel\na/1.jpg\tcat\nb/2.jpg\tdog\n".encode("utf-16"),
    ],
)
def test_separators_columns_and_encodings_in_common_use_are_read(tmp_path: Path, content: str | bytes) -> None:
    assert read(fill(tmp_path, "a/1.jpg", "b/2.jpg"), content) == {"a/1.jpg": "cat", "b/2.jpg": "dog"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1.jpg,cat\n2.jpg,dog\n", "looks like an image's line already"),
        ("name,kind\n1.jpg,cat\n", "name,kind"),
        ("filename,image,label\n1.jpg,1.jpg,cat\n", "can be the path: filename, image"),
        ("path,class,category\n1.jpg,cat,animal\n", "can be the label: class, category"),
        ("path,label,label\n1.jpg,cat,dog\n", "can be the label"),
    ],
)
def test_columns_that_are_missing_or_not_sure_are_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError) as refused:
        read(fill(tmp_path, "1.jpg", "2.jpg"), content)
    assert said in refused.value.arrived


def test_contested_labels_are_left_out_with_a_warning_that_counts_and_names_them(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    lines = ("path,label", "1.jpg,cat", "2.jpg,dog", "3.jpg,cat", f"{tmp_path}/3.jpg,dog", "4.jpg,cat", "4.jpg,cat ")
    assert read(tmp_path, "\n".join(lines)) == {"1.jpg": "cat", "2.jpg": "dog", "4.jpg": "cat"}
    images = scan(tmp_path / "table.csv")
    assert "contradict each other about their label or part: 1 (3.jpg)" in images.warnings[0]
    assert images.set_aside == (
        ("3.jpg", "named more than once, as cat and as dog (lines 4, 5)"),
        ("4.jpg", "named before (line 7)"),
    )
    assert [each.path for each in images.contested] == ["3.jpg"]


def test_lines_that_are_left_out_are_counted_by_their_reason(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    read(tmp_path, 'path,label\n1.jpg,cat\n2.jpg,dog\ngone.jpg,cat\n3.jpg,"cat\n4.jpg,dog\n5.jpg,dog\n')
    (warning,) = scan(tmp_path / "table.csv").warnings
    assert "left out: 2" in warning
    assert "1 there is no such file" in warning
    assert "control character (U+000A)" in warning


def test_lines_with_more_cells_than_columns_are_left_out_rather_than_cut(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    quoted = 'path,label,\n1.jpg,"salt, sea",\n2.jpg,"salt, sea",\n3.jpg,cat,\n4.jpg,cat\n'
    assert read(tmp_path, quoted)["1.jpg"] == "salt, sea"
    (tmp_path / "table.csv").write_text("path,label\n1.jpg,salt, sea\n2.jpg,salt\n3.jpg,cat\n4.jpg,cat\n")
    images = scan(tmp_path / "table.csv")
    assert [sample.path for sample in images.samples] == ["2.jpg", "3.jpg", "4.jpg"]
    assert "(line 2)" in images.set_aside[0][1]
    assert "more cells than there are columns" in images.warnings[0]


def test_paths_are_found_in_another_unicode_form(tmp_path: Path) -> None:
    fill(tmp_path, "cafe\u0301/1.jpg", "2.jpg")
    assert read(tmp_path, "path,label\ncaf\u00e9/1.jpg,a\n2.jpg,b\n") == {"cafe\u0301/1.jpg": "a", "2.jpg": "b"}


def test_a_column_of_parts_is_one_whatever_it_is_called_and_what_is_not_used_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    lines = "1.jpg,cat,Training,a\n2.jpg,dog,Training,b\n3.jpg,cat,PublicTest,a\n4.jpg,dog,PrivateTest,b\n"
    read(tmp_path, "image,label,Usage,camera\n" + lines)
    images = scan(tmp_path / "table.csv")
    assert [sample.part for sample in images.samples] == ["train", "train", "test", "test"]
    assert images.notes == ("Columns of the table: image as path, label as label, usage as split; not used: camera.",)
    with pytest.raises(DataError, match="can be the split: usage, again"):
        read(tmp_path, "image,label,usage,again\n1.jpg,cat,train,train\n2.jpg,dog,test,test\n")


def test_classes_that_stand_for_a_missing_value_are_warned_of(tmp_path: Path) -> None:
    read(fill(tmp_path, "1.jpg", "2.jpg", "3.jpg"), "path,label\n1.jpg,nan\n2.jpg,dog\n3.jpg,none\n")
    (warning,) = scan(tmp_path / "table.csv").warnings
    assert "missing value: nan." in warning


def test_a_refusal_names_a_file_for_each_reason(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(DataError) as refused:
        read(tmp_path, "path,label\n1.jpg,cat\n2.jpg,cat\nC:\\photos\\3.jpg,dog\n")
    assert r"1 there is no such file: C:\photos\3.jpg" in refused.value.arrived
    with pytest.raises(DataError) as refused:
        read(tmp_path, "path,label\nphotos/1.jpg,cat\nphotos/2.jpg,dog\n")
    assert str(tmp_path) in refused.value.remedy, "paths of a table are relative to its folder"


def test_files_of_systems_and_programs_are_left_out_as_from_folders_wherever_the_set_lies(tmp_path: Path) -> None:
    names = ("thumbs/a/1.jpg", "thumbs/.b/2.jpg", "thumbs/.b/._2.jpg", "thumbs/.b/@eaDir/2.jpg/thumb.jpg",
             "thumbs/.trash/3.jpg")  # fmt: skip
    fill(tmp_path, *names)
    lines = "".join(f"{name},{'a' if 'a/1' in name else 'b'}\n" for name in names)
    assert read(tmp_path, "path,label\n" + lines) == {"thumbs/a/1.jpg": "a", "thumbs/.b/2.jpg": "b"}
    (warning,) = scan(tmp_path / "table.csv").warnings
    assert "left out: 3 (3 a file of a system or program by its name, or in such a folder)" in warning
    again = f"path,label\nthumbs/a/1.jpg,a\n{tmp_path}/thumbs/a/../.b/2.jpg,b\n"
    assert read(tmp_path, again).keys() == set(names[:2])


def test_a_column_of_annotators_makes_several_labels_one_by_majority(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    lines = [
        "image,label,Worker ID", "1.jpg,cat,anna", "1.jpg,cat,bert", "1.jpg,dog,chris",
        "2.jpg,dog,anna", "2.jpg,dog,bert", "3.jpg,dog,anna", "3.jpg,cat,bert",
    ]  # fmt: skip
    assert read(tmp_path, "\n".join(lines)) == {"1.jpg": "cat", "2.jpg": "dog"}
    images = scan(tmp_path / "table.csv")
    (contested,) = images.contested
    assert (contested.path, contested.votes) == ("3.jpg", {"cat": 1, "dog": 1})
    assert images.set_aside == (("3.jpg", "contested: cat by 1, dog by 1 (lines 7, 8)"),)
    assert "Labels of 3 annotators, 7 for 3 images; they differ on 2" in images.notes[1]
    assert "worker_id as annotator" in images.notes[0]
    assert "do not agree: 1 (3.jpg)" in images.warnings[0]


def test_lines_that_put_an_image_into_two_parts_or_groups_are_contested(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    lines = [
        "path,label,split,group", "1.jpg,cat,train,a", "1.jpg,cat,test,a", "2.jpg,dog,train,a", "2.jpg,dog,train,b",
        "3.jpg,cat,train,a", "4.jpg,dog,train,a",
    ]  # fmt: skip
    assert read(tmp_path, "\n".join(lines)) == {"3.jpg": "cat", "4.jpg": "dog"}
    found = {each.path: each.reason for each in scan(tmp_path / "table.csv").contested}
    assert found == {
        "1.jpg": "named more than once, in part test and in train",
        "2.jpg": "named more than once, in group a and in b",
    }
