"""`lensmith predict` on the command line."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.command_line import Run
from lensmith.bundle.format import Bundle


def test_rows_are_printed_and_the_count_goes_to_standard_error(run: Run, colour_bundle: Bundle, colours: Path) -> None:
    (colours / "red" / "000.png").write_bytes(b"no picture")
    code, out, err = run("predict", colour_bundle.path, colours)
    assert code == 0
    assert len(list(csv.DictReader(out.splitlines()))) == 24
    assert err.startswith("23 classified, 1 unreadable, ")
    assert err.endswith(" images a second\n")


def test_guesses_are_counted_where_there_are_some(
    run: Run, unsure_bundle: Bundle, colours: Path, between: Path
) -> None:
    _, _, err = run("predict", unsure_bundle.path, colours / "red", between)
    assert err.startswith("9 classified, 0 unreadable, 1 abstained, ")
    assert "abstained" not in run("predict", unsure_bundle.path, colours / "red")[2]


def test_with_a_file_nothing_is_printed(run: Run, colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    code, out, _ = run("predict", colour_bundle.path, colours, "--out", tmp_path / "x.jsonl", "--top-k", "2")
    assert (code, out) == (0, "")
    assert len(json.loads((tmp_path / "x.jsonl").read_text().splitlines()[0])["top"]) == 2


def test_json_is_one_object_with_the_counts(run: Run, colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    code, out, _ = run("predict", colour_bundle.path, colours, "--json", "--out", tmp_path / "x.csv")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"images", "unreadable", "abstained", "seconds", "images_per_second", "out"}
    assert (found["images"], found["out"]) == (24, str(tmp_path / "x.csv"))


def test_json_without_a_file_holds_the_answers(run: Run, colour_bundle: Bundle, colours: Path) -> None:
    _, out, _ = run("predict", colour_bundle.path, colours / "red" / "001.jpg", "no.png", "--json")
    answers = json.loads(out)["predictions"]
    assert answers[0]["label"] == "red"
    assert "No such file" in answers[1]["error"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["no-bundle", "x.png"], "bundle.json"),
        (["BUNDLE", "x.png", "--format", "parquet"], "Add --out FILE.parquet"),
        (["BUNDLE", "x.png", "--top-k", "0"], "top_k"),
        (["BUNDLE", "EMPTY"], "Images were expected"),
    ],
)
def test_bad_input_is_one_paragraph(
    run: Run, colour_bundle: Bundle, tmp_path: Path, args: list[str], said: str
) -> None:
    places = {"BUNDLE": colour_bundle.path, "EMPTY": tmp_path}
    code, out, err = run("predict", *(places.get(arg, arg) for arg in args))
    assert (code, out) == (2, "")
    assert said in err


def test_a_reader_that_stops_early_is_no_error_to_read_about(colour_bundle: Bundle, colours: Path) -> None:
    # The rows of 4,000 names do not fit into the pipe that nobody reads any more.
    script = (
        f"yes {colours}/red/001.jpg | head -n 4000 | "
        f"{sys.executable} -m lensmith predict {colour_bundle.path} - | head -n 2"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("\n") == 2
    assert done.stderr == ""
