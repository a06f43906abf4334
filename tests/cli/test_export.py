"""`lensmith export` on the command line."""

import json
from pathlib import Path

import pytest

from lensmith.bundle.format import Bundle
from lensmith.cli import main
from lensmith.config import ExportSettings
from lensmith.exporting.export import export


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(each) for each in argv])
    return int(stopped.value.code or 0)


def test_the_table_is_printed_and_the_same_as_json(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert run("export", trained, "--out", out, "--target", "edge", "--formats", "openvino", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    wanted = {"engine", "precision", "accuracy", "latency_ms", "images_per_second", "bytes", "chosen", "why"}
    assert all(wanted <= row.keys() for row in said["candidates"])
    assert [row["chosen"] for row in said["candidates"]] == [True, False, False]
    assert [each["format"] for each in said["formats"]] == ["openvino", "edge"]
    assert run("bundle", "show", out) == 0
    assert "onnxruntime-int8-dynamic" in capsys.readouterr().out
    assert run("export", trained, "--out", out, "--target", "edge", "--overwrite") == 0
    shown = capsys.readouterr()
    assert "the only one within 0.5" in shown.out
    assert "12 training images, and 32 are needed to calibrate" in shown.out
    assert "onnxruntime-fp32: accuracy" in shown.err


def test_a_bundle_is_measured_anew(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = export(ExportSettings(run=trained, out=tmp_path / "bundle.zip"), quick=True)
    before = made.manifest.engines[0]
    assert run("export", "--retune", made.bundle) == 0
    assert "onnxruntime-fp32 serves, as before" in capsys.readouterr().out
    after = Bundle.load(made.bundle).records()[0]
    assert after.load_s is not None
    assert before.load_s is None
    assert (after.accuracy, after.drop) == (before.accuracy, before.drop)
    assert run("export", "--retune", made.bundle, "--json") == 0
    assert json.loads(capsys.readouterr().out)["before"] == "onnxruntime-fp32"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "a RUN or --retune BUNDLE is needed, and not both"),
        (["somewhere", "--retune", "bundle"], "a RUN or --retune BUNDLE is needed, and not both"),
        (["--retune", "bundle", "--bundle-name", "other"], "retune takes the bundle as it is"),
        (["somewhere", "--formats", "onnx,edge"], "formats"),
        (["somewhere", "--max-accuracy-drop", "-1"], "max_accuracy_drop"),
        (["--retune", "nowhere"], "A bundle (a folder or zip with bundle.json) was expected at nowhere."),
        (["nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", *argv) == 2
    assert message in capsys.readouterr().err


def test_formats_that_are_there_already_are_told_before_anything_is_measured(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle-formats").mkdir()
    (tmp_path / "bundle-formats" / "mine").touch()
    assert run("export", trained, "--out", tmp_path / "bundle", "--formats", "edge") == 2
    assert "bundle-formats" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
