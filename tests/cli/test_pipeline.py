"""`lensmith pipeline` on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.command_line import Run


@pytest.fixture
def file(many_colours: Path, tmp_path: Path, quick_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    content = {
        "name": "colours",
        "data": str(many_colours),
        "train": {**quick_settings, "epochs": 1, "trainable_stages": 0, "head_solver": "lbfgs"},
        "evaluate": False,
        "export": False,
        "register": False,
    }
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(content))
    return Path("pipeline.yaml")


@pytest.mark.slow
def test_a_gate_that_stays_shut_exits_with_3_and_says_which_number(file: Path, run: Run) -> None:
    code, said, _ = run("pipeline", "run")
    assert code == 0
    assert "✓ gate" in said
    assert "above_commonest" in said
    assert "colours: 4 done" in said
    code, out, _ = run("pipeline", "run", str(file), "--json")
    assert code == 0
    answer = json.loads(out)
    assert [each["state"] for each in answer["stages"]] == ["unchanged"] * 3 + ["off"] * 2 + ["unchanged"] + ["off"] * 2

    file.write_text(file.read_text() + "gate: {max_size_mb: 0.001, min_recall: 0.2}\n")
    code, out, err = run("pipeline", "run")
    assert code == 3
    assert "FAILS: broken" in out
    assert "max_size_mb: size is " in err
    assert "at most 0.001 allowed (broken)" in err
    code, out, _ = run("pipeline", "run", "--json")
    assert code == 3
    answer = json.loads(out)
    gate = answer["stages"][5]
    assert (gate["state"], gate["values"]["passed"]) == ("failed", False)
    assert gate["values"]["limits"][0]["limit"] == "max_size_mb"
    assert answer["error"].startswith("A new model that keeps the limits")

    code, shown, _ = run("pipeline", "show", "--out", "flow.mmd")
    assert code == 0
    assert "✗ gate" in shown
    assert "at most 0.001" in shown
    assert Path("flow.mmd").read_text().startswith("---\n")
    code, out, _ = run("pipeline", "show", "runs/pipelines/colours", "--json")
    assert code == 0
    assert json.loads(out)["stages"][5]["state"] == "failed"


def test_mistakes_exit_with_2_before_anything_is_there(file: Path, run: Run) -> None:
    file.write_text(file.read_text() + "gaet: {}\nkeep: none\n")
    code, _, said = run("pipeline", "run")
    assert code == 2
    assert "gaet is no setting, gate is" in said
    assert "keep = 'none'" in said
    assert not Path("runs").exists()
    code, out, _ = run("pipeline", "run", "nowhere.yaml", "--json")
    assert code == 2
    assert json.loads(out)["error"] == "SettingsError"
