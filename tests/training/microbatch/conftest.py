"""Scripts in processes of their own, where settings of the heap and limits of memory harm nobody."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

HEAD = """
import os, resource, torch
from lensmith.training.microbatch import malloc, memory, usage
torch.set_num_threads(1)
cpu = torch.device("cpu")
held = lambda: usage.status_bytes("VmRSS")

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(50 * 2**20, dtype=torch.uint8) for _ in range(4)]
    small = torch.ones(100)
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
"""`step` takes and frees 200 MB, and returns the number of page faults."""


@pytest.fixture
def run_script() -> Callable[[str], list[Any]]:
    """Runs a script after HEAD: the words and whole numbers that it prints."""

    def run(script: str) -> list[Any]:
        command = [sys.executable, "-c", HEAD + textwrap.dedent(script)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return [int(word) if word.isdecimal() else word for word in done.stdout.split()]

    return run
