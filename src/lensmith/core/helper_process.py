"""Helper processes: a module answers a JSON request in a Python process of its own.

A fresh process measures memory and time undisturbed, isolates this one from crashes of libraries, and returns all its
memory to the system.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any


class HelperError(Exception):
    """A helper process failed; the message is its last line on standard error, or what ended it."""


def run_helper(module: str, request: Any, timeout_s: float | None) -> Any:
    """Run `python -m module` on a request.

    Args:
        module: name of a module that calls `answer_request` when it is run.
        request: plain values for JSON.
        timeout_s: seconds after which the process is killed; None for no limit.

    Returns:
        The plain values that the module answered.

    Raises:
        HelperError: the process failed, took too long, or did not answer JSON.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(request), capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
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
    """The helper's side: read the request from standard input, and print the result of `work`.

    Output of libraries goes to standard error meanwhile, so that it does not mix with the answer.
    """
    request = json.load(sys.stdin)
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        json.dump(work(request), answer)
