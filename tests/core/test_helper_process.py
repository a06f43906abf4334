"""A helper process answers in JSON, or says in one line why not."""

import sys
from pathlib import Path

import pytest

from lensmith.core.helper_process import HelperError, run_helper

MODULE = """
import os, sys, time
from lensmith.core.helper_process import answer_request

def work(request):
    print("a library's chatter")
    os.system("echo a child's chatter")
    if request == "fail":
        raise SystemExit("the last line")
    if request == "sleep":
        time.sleep(60)
    return {"request": request, "variable": os.environ.get("ORT_DISABLE_TELEMETRY")}

answer_request(work)
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_helper.py").write_text(MODULE)
    (tmp_path / "silent_helper.py").write_text("print('no JSON')")
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *sys.path]))
    return "a_helper"


def test_what_libraries_print_does_not_mix_with_the_answer(helper: str) -> None:
    answer = run_helper(helper, [1, "ä"], 60)
    assert answer == {"request": [1, "ä"], "variable": "1"}


@pytest.mark.parametrize(
    ("module", "request_", "timeout_s", "expected"),
    [
        ("a_helper", "fail", 60.0, "the last line"),
        ("a_helper", "sleep", 0.5, "0.5 s"),
        ("silent_helper", None, 60.0, "JSON"),
    ],
)
def test_the_error_of_a_failed_helper_has_the_reason(
    helper: str, module: str, request_: str | None, timeout_s: float, expected: str
) -> None:
    with pytest.raises(HelperError, match=expected):
        run_helper(module, request_, timeout_s)
