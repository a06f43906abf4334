"""Helper processes: a module works on a JSON request in an interpreter of its own, and answers in JSON.

A fresh process measures memory and time undisturbed, survives no fault of a library into ours, and hands everything it
took back to the system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any


class HelperError(Exception):
    """A helper process that failed; its message is the process's last line on standard error, or what ended it."""


def run_helper(module: str, request: Any, timeout_s: float | None, environment: Mapping[str, str] | None = None) -> Any:
    """Run `python -m module` on a request.

    Args:
        module: a module that calls `answer_request` when it is run.
        request: plain values for JSON.
        timeout_s: after so many seconds the process is killed; None: it has all the time that it needs.
        environment: variables to set besides this process's own.

    Returns:
        The plain values that the module answered.

    Raises:
        HelperError: it failed, took too long, or answered no JSON.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(request), capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HelperError(f"It was not done after {timeout_s:g} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        by_signal = done.returncode < 0  # then the last line is an older message
        raise HelperError(lines[-1] if lines and not by_signal else f"It ended with {done.returncode}")
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise HelperError("It answered no JSON") from None


def answer_request(work: Callable[[Any], Any]) -> None:
    """The helper's side: read the request from standard input, and print what `work` makes of it.

    What libraries print meanwhile goes to standard error, so that it does not mix with the answer.
    """
    request = json.load(sys.stdin)
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        json.dump(work(request), answer)
