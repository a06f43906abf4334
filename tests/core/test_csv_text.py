import csv
import io
from pathlib import Path

import pytest

from lensmith.core.csv_text import csv_text, paths_from, require_csv_name, require_free
from lensmith.errors import OutputError, SettingsError


def test_cells_come_back_whatever_they_hold() -> None:
    rows = [["a,b", 'c"d', "e\rf"], ["g\nh", "i\r\nj", " ü "], ["", "", ""]]
    text = csv_text(("one", "two", "three"), rows)
    assert text.startswith("one,two,three\n")
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == rows


def test_optional_columns_without_a_cell_are_left_out() -> None:
    rows = [("a", "", "", 0), ("b", "", "x", "")]
    assert csv_text(("path", "split", "group", "fold"), rows, ("split", "group", "fold")) == (
        "path,group,fold\na,,0\nb,x,\n"
    )
    assert csv_text(("path", "split"), [], ("split",)) == "path\n"


def test_paths_are_relative_to_the_folder_by_real_names(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    path = paths_from(tmp_path / "link", tmp_path / "lists" / "today")
    assert path("cat/1.jpg#xywh=1,2,3,4") == "../../photos/cat/1.jpg#xywh=1,2,3,4"
    assert path("../other/2.jpg") == "../../other/2.jpg"
    assert path("/else/3.jpg") == "/else/3.jpg"


def test_only_a_file_of_the_same_text_may_be_there(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    require_free(file, "path\n", overwrite=False)
    file.write_text("path\n")
    require_free(file, "path\n", overwrite=False)
    require_free(file, None, overwrite=True)
    for text in ("other\n", None):
        with pytest.raises(OutputError, match="other content"):
            require_free(file, text, overwrite=False)
    with pytest.raises(OutputError, match="Something else"):
        require_free(tmp_path, "path\n", overwrite=True)


@pytest.mark.parametrize(("out", "name"), [("a", "a.csv"), ("a.xlsx", "a.csv"), (".", "labels.csv")])
def test_a_list_is_named_as_a_csv(out: str, name: str) -> None:
    require_csv_name(Path("b.CSV"), "--out")
    with pytest.raises(SettingsError, match=f"Name it {name}"):
        require_csv_name(Path(out), "--out")
