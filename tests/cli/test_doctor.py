"""`lensmith doctor`: marks and remedies for people, one JSON object for programs, 1 on a problem."""

import json

import pytest

from fixtures.command_line import Run
from lensmith import api
from lensmith.ops.doctor import Diagnosis, MachineFinding

OK = MachineFinding("Processor", "Cores allowed", "2 of 64 [quota]", facts={"cores_allowed": 2})
NOTE = MachineFinding("Limits", "Open files", "256", "ulimit -n 4096")
PROBLEM = MachineFinding("Training", "PyTorch", "cannot be used", "pip install 'lensmith[train]'", problem=True)


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[MachineFinding]:
    """What `lensmith doctor` finds; a test adds to it."""
    found: list[MachineFinding] = [OK]
    monkeypatch.setattr(api, "doctor", lambda: Diagnosis(tuple(found)))
    return found


def test_remedies_stand_below_their_problems(findings: list[MachineFinding], run: Run) -> None:
    findings.append(NOTE)
    code, out, _ = run("doctor")
    assert code == 0
    lines = out.splitlines()
    assert "  ✓ Cores allowed  2 of 64 [quota]" in lines
    note = lines.index("  ! Open files     256")
    assert "ulimit -n 4096" in lines[note + 1]
    assert lines[-1] == "no problems, 1 note"


def test_a_problem_exits_with_1(findings: list[MachineFinding], run: Run) -> None:
    findings.append(PROBLEM)
    code, out, _ = run("doctor")
    assert code == 1
    assert "pip install 'lensmith[train]'" in out
    code, out, _ = run("doctor", "--json")
    content = json.loads(out)
    assert (code, content["status"], content["cores_allowed"]) == (1, "problem", 2)
    assert content["findings"][0]["remedy"] is None
