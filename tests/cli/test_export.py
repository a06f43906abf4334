"""`lensmith export` on the command line."""

import functools
import json
from pathlib import Path

import jsonschema
import pytest

from fixtures.command_line import Run
from lensmith import api
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.config import ExportSettings
from lensmith.exporting.export import export


@pytest.mark.slow
def test_the_table_is_printed_and_the_same_as_json(
    trained: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    line = ["export", trained, "--out", target, "--target", "edge", "--formats", "openvino"]
    monkeypatch.setattr(api, "export", functools.cache(api.export))
    code, out, err = run(*line, "--json")
    assert code == 0
    assert "onnxruntime-fp32: accuracy" in err
    said = json.loads(out)
    wanted = {"engine", "precision", "accuracy", "latency_ms", "images_per_second", "bytes", "chosen", "why"}
    assert all(wanted <= row.keys() for row in said["candidates"])
    assert [row["chosen"] for row in said["candidates"]] == [True, False, False]
    assert [each["format"] for each in said["formats"]] == ["openvino", "edge"]
    schema = Path(__file__).parents[2] / "docs/bundle.schema.json"
    jsonschema.validate(json.loads((target / MANIFEST).read_text()), json.loads(schema.read_text()))
    code, out, _ = run("bundle", "show", target)
    assert code == 0
    assert "onnxruntime-int8-dynamic" in out
    code, out, _ = run(*line)
    assert code == 0
    assert "the only one within 0.5" in out
    assert "12 training images, and 32 are needed to calibrate" in out


@pytest.mark.slow
def test_a_bundle_is_measured_anew(trained: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "retune", functools.cache(api.retune))
    made = export(ExportSettings(run=trained, out=tmp_path / "bundle.zip"), quick=True)
    before = made.manifest.engines[0]
    code, out, _ = run("export", "--retune", made.bundle)
    assert code == 0
    assert "onnxruntime-fp32 serves, as before" in out
    after = Bundle.load(made.bundle).records()[0]
    assert after.load_s is not None
    assert before.load_s is None
    assert (after.accuracy, after.drop) == (before.accuracy, before.drop)
    code, out, _ = run("export", "--retune", made.bundle, "--json")
    assert code == 0
    assert json.loads(out)["before"] == "onnxruntime-fp32"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "a RUN or --retune BUNDLE is needed, and not both"),
        (["somewhere", "--retune", "bundle"], "a RUN or --retune BUNDLE is needed, and not both"),
        (["--retune", "bundle", "--bundle-name", "other"], "bundle_name"),
        (["somewhere", "--formats", "onnx,edge"], "formats"),
        (["somewhere", "--max-accuracy-drop", "-1"], "max_accuracy_drop"),
        (["--retune", "nowhere"], "A bundle (a folder or zip with bundle.json) was expected at nowhere."),
        (["nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(argv: list[str], message: str, run: Run) -> None:
    code, _, err = run("export", *argv)
    assert code == 2
    assert message in err


@pytest.mark.slow
def test_formats_that_are_there_already_are_told_before_anything_is_measured(
    trained: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "bundle-formats").mkdir()
    (tmp_path / "bundle-formats" / "mine").touch()
    code, _, err = run("export", trained, "--out", tmp_path / "bundle", "--formats", "edge")
    assert code == 2
    assert "bundle-formats" in err
    assert not (tmp_path / "bundle").exists()
