"""`lensmith update` shows the comparison once, asks where there is a terminal, and says what became of the model."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.command_line import Run
from lensmith import api
from lensmith.curation.label_summary import LabelSummary
from lensmith.workflows.pipeline.intervals import Interval
from lensmith.workflows.update.run import UpdateResult


@pytest.fixture(autouse=True)
def _updated(monkeypatch: pytest.MonkeyPatch) -> None:
    """`api.update` gives a result without work, promoted as `confirm` or `yes` says."""

    def update(*_: Any, confirm: Callable[[UpdateResult], bool], yes: bool | None = None, **__: Any) -> UpdateResult:
        share, difference = Interval(0.8, 0.7, 0.9), Interval(1.0, -1.0, 3.0)
        labels = LabelSummary(10, 0.5, (), (), (), (), ("Labels look right.",), 1.0)
        result = UpdateResult(
            "flowers@1", Path("bundle"), 2, labels, 2, 10, share, share, difference, ("a.png",), (), passed=True,
            reason="", notes=("1 picture is left out.",), page=Path("page.html"),
        )  # fmt: skip
        if yes or confirm(result):
            result.promoted = "version 2 is the champion of flowers"
        return result

    monkeypatch.setattr(api, "update", update)


@pytest.mark.parametrize(("answer", "promoted"), [("y\n", True), ("n\n", False), ("maybe\ny\n", True), ("", False)])
def test_at_a_terminal_one_question_is_asked_and_its_end_means_no(
    run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, promoted: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    code, out, err = run("update", "photos", "--model", "flowers")
    assert code == 0
    assert (out + err).count("Accuracy on 10 held-out pictures: 80.0% before, 80.0% now, +1.0 points") == 1
    assert "Labels look right." in err
    assert "1 picture is left out." in err
    assert "Promote the new model?" in err
    assert ("version 2 is the champion" in out, "Not promoted" in out) == (promoted, not promoted)


def test_without_a_terminal_nothing_is_asked_and_yes_promotes(run: Run) -> None:
    code, out, err = run("update", "photos", "--model", "flowers")
    assert (code, "Promote" in err, "Not promoted" in out, out.count("Accuracy")) == (0, False, True, 1)
    found = json.loads(run("update", "photos", "--model", "flowers", "--yes", "--json")[1])
    assert found["is_promoted"]
    assert (found["labels"]["lines"], found["notes"]) == (["Labels look right."], ["1 picture is left out."])
