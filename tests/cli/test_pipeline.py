"""`lensmith pipeline` on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lensmith.cli import main


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["pipeline", *args])
    return int(ended.value.code or 0)


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
def test_a_gate_that_stays_shut_exits_with_3_and_says_which_number(file: Path, capsys: Any) -> None:
    assert run("run") == 0
    said = capsys.readouterr().out
    assert "✓ gate" in said
    assert "above_commonest" in said
    assert "colours: 4 done" in said
    assert run("run", str(file), "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [each["state"] for each in answer["stages"]] == ["unchanged"] * 3 + ["off"] * 2 + ["unchanged"] + ["off"] * 2

    file.write_text(file.read_text() + "gate: {max_size_mb: 0.001, min_recall: 0.2}\n")
    assert run("run") == 3
    printed = capsys.readouterr()
    assert "FAILS: broken" in printed.out
    assert "max_size_mb: size is " in printed.err
    assert "at most 0.001 allowed (broken)" in printed.err
    assert run("run", "--json") == 3
    answer = json.loads(capsys.readouterr().out)
    gate = answer["stages"][5]
    assert (gate["state"], gate["values"]["passed"]) == ("failed", False)
    assert gate["values"]["limits"][0]["limit"] == "max_size_mb"
    assert answer["error"].startswith("A new model that keeps the limits")

    assert run("show", "--out", "flow.mmd") == 0
    shown = capsys.readouterr().out
    assert "✗ gate" in shown
    assert "at most 0.001" in shown
    assert Path("flow.mmd").read_text().startswith("---\n")
    assert run("show", "runs/pipelines/colours", "--json") == 0
    assert json.loads(capsys.readouterr().out)["stages"][5]["state"] == "failed"


def test_mistakes_exit_with_2_before_anything_is_there(file: Path, capsys: Any) -> None:
    file.write_text(file.read_text() + "gaet: {}\nkeep: none\n")
    assert run("run") == 2
    said = capsys.readouterr().err
    assert "gaet is no setting, gate is" in said
    assert "keep = 'none'" in said
    assert not Path("runs").exists()
    assert run("run", "nowhere.yaml", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"] == "SettingsError"


def test_the_group_says_what_it_can(capsys: Any) -> None:
    assert run("--help") == 0
    said = capsys.readouterr().out
    assert "run" in said
    assert "show" in said
