"""`lensmith evaluate` on the command line."""

import json
import shutil
from pathlib import Path

import pytest

from fixtures.command_line import Run
from lensmith.bundle.format import Bundle


def test_people_read_the_headline_the_worst_classes_and_where_the_report_is(
    run: Run, colour_bundle: Bundle, colours: Path, tmp_path: Path
) -> None:
    (colours / "blue" / "000.png").rename(colours / "red" / "mislabelled.png")
    (colours / "green" / "000.png").write_bytes(b"no picture")
    code, out, _ = run("evaluate", colour_bundle.path, colours, "--out", tmp_path / "out")
    assert code == 0
    assert "0.9565  95 % interval 0.7901 to 0.9923" in out  # 22 of 23
    lines = [line.split() for line in out.splitlines()]
    by_class = [line[0] for line in lines if line and line[0] in {"blue", "green", "red"}]
    assert by_class == ["blue", "red", "green"]  # F1 14/15, 16/17, 1
    assert "left out: green/000.png: It cannot be decoded" in out
    assert f"report: {tmp_path / 'out' / 'report.html'}" in out


def test_people_read_what_a_threshold_of_confidence_does(
    run: Run, unsure_bundle: Bundle, colours: Path, between: Path, tmp_path: Path
) -> None:
    shutil.copy(between, colours / "red" / "between.png")
    _, out, _ = run("evaluate", unsure_bundle.path, colours, "--out", tmp_path / "out")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "answers given 0.9600 confidence 0.9000 and above" in lines
    assert "correct of those 1.0000 0.95 was wanted" in lines


def test_json_is_one_object(run: Run, colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    code, out, _ = run("evaluate", colour_bundle.path, colours, "--out", tmp_path / "out", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["accuracy"] == 1.0
    assert found["confusion"] == [[8, 0, 0], [0, 8, 0], [0, 0, 8]]
    assert Path(found["report"]).is_file()


def test_the_report_goes_to_the_folder_evaluation_by_default(
    run: Run,
    colour_bundle: Bundle,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("evaluate", colour_bundle.path, colours)[0] == 0
    assert (tmp_path / "evaluation" / "report.html").is_file()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["BUNDLE", "DATA", "--part", "val"], "lensmith data split"),
        (["BUNDLE", "DATA", "--engine", "tensorrt"], "onnxruntime"),
    ],
)
def test_bad_input_is_one_paragraph(run: Run, colour_bundle: Bundle, colours: Path, args: list[str], said: str) -> None:
    places = {"BUNDLE": colour_bundle.path, "DATA": colours}
    code, out, err = run("evaluate", *(places.get(arg, arg) for arg in args))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
