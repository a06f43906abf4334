"""`lensmith doctor`: marks and remedies for people, one JSON object for programs, 1 on a problem."""

import json

import pytest

from lensmith import api
from lensmith.cli import main
from lensmith.ops.doctor import Diagnosis, MachineFinding

OK = MachineFinding("Processor", "Cores allowed", "2 of 64 [quota]", facts={"cores_allowed": 2})
NOTE = MachineFinding("Limits", "Open files", "256", "ulimit -n 4096")
PROBLEM = MachineFinding("Training", "PyTorch", "cannot be used", "pip install 'lensmith[train]'", problem=True)


def run(monkeypatch: pytest.MonkeyPatch, findings: tuple[MachineFinding, ...], *args: str) -> int:
    monkeypatch.setattr(api, "doctor", lambda: Diagnosis(findings))
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *args])
    return int(ended.value.code or 0)


def test_remedies_stand_below_what_they_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, (OK, NOTE)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  ✓ Cores allowed  2 of 64 [quota]" in lines
    note = lines.index("  ! Open files     256")
    assert "ulimit -n 4096" in lines[note + 1]
    assert lines[-1] == "no problems, 1 note"


def test_a_problem_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, (OK, PROBLEM)) == 1
    assert "pip install 'lensmith[train]'" in capsys.readouterr().out


def test_json_is_one_object_with_numbers_as_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, (OK, PROBLEM), "--json") == 1
    content = json.loads(capsys.readouterr().out)
    assert (content["status"], content["cores_allowed"]) == ("problem", 2)
    assert content["findings"][0]["remedy"] is None


@pytest.mark.slow
def test_this_machine_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    printed = capsys.readouterr().out
    assert "Cores allowed" in printed
    assert (ended.value.code == 0) is ("no problems" in printed)
