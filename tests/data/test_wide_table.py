"""Wide tables: which columns are annotators, and what is left alone since it is not certain."""

from pathlib import Path

import pytest

from lensmith.data.label_export.collect import collect
from lensmith.data.scan import scan
from lensmith.data.table_cells import read_cells
from lensmith.errors import DataError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "path,Anna M.,ben,carla\na,cat,cat,dog\nb,dog,,dog\nc,,,\n",
            [("a", "cat", "Anna M."), ("a", "cat", "ben"), ("a", "dog", "carla"), ("b", "dog", "Anna M."),
             ("b", "dog", "carla"), ("c", "", "")],
        ),
        (";path;anna;ben;split\n0;a;cat;cat;train\n1;b;cat;;val\n", [("a", "cat", "anna"), ("a", "cat", "ben"),
                                                                  ("b", "cat", "anna")]),
    ],
)  # fmt: skip
def test_a_column_for_each_annotator_is_read_as_a_line_for_each_label(
    text: str, wanted: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "wide.csv"
    file.write_text(text, encoding="utf-8")
    cells = read_cells(file)
    found = [tuple(cells.cell(row, name) for name in ("path", "label", "annotator")) for _, row in cells.rows]
    assert found == wanted
    assert "one annotator each" in cells.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "path,cat,dog\na,0,1\nb,1,0\n",  # a column for each class
        "path,width,height\na,28,28\nb,28,28\n",
        "path,anna,ben,remark\na,cat,cat,blurred\nb,dog,dog,\n",
        "path,camera,place\na,left,yard\nb,right,yard\n",
        "path,anna\na,cat\nb,dog\n",
        "path,anna,Anna\na,cat,cat\nb,dog,dog\n",
    ],
)
def test_columns_that_may_be_something_else_are_no_annotators(text: str, tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="path,label,annotator"):
        read_cells(file)


def test_a_surplus_cell_is_reported_and_a_wide_table_is_trained_on_and_exported(colours: Path) -> None:
    file = colours / "wide.csv"
    names = sorted(path.relative_to(colours).as_posix() for path in colours.rglob("*.png"))[:3]
    file.write_text(
        f"path,anna,ben\n{names[0]},cat,cat\n{names[1]},dog,dog\n{names[2]},dog,cat,more\n", encoding="utf-8"
    )
    images = scan(file)
    assert [(sample.path, images.labels[sample.label]) for sample in images.samples] == [
        (names[0], "cat"), (names[1], "dog"),
    ]  # fmt: skip
    assert "more cells" in images.set_aside[0][1]
    marks = {mark for picture in collect(file).pictures for mark in picture.marks}
    assert {mark.annotator for mark in marks} == {"anna", "ben"}
