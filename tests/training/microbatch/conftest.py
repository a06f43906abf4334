"""Scripts in processes of their own, where settings of the heap and limits of memory harm nobody."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SERVER = """
import json, os, resource, sys, traceback, torch
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

for line in sys.stdin:
    if os.fork() == 0:
        try:
            exec(json.loads(line), globals())
        except Exception:
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    print("ended", os.wait()[1], flush=True)
"""
"""Runs each script that it is sent in a process forked from here. `step` takes and frees 200 MB, and returns the number
of page faults."""


@pytest.fixture(scope="session")
def run_script() -> Iterator[Callable[[str], list[Any]]]:
    """Runs a script in a process that has imported torch, and little else: the words and whole numbers it prints."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    sent, printed = server.stdin, server.stdout

    def run(script: str) -> list[Any]:
        print(json.dumps(textwrap.dedent(script)), file=sent, flush=True)
        words: list[Any] = []
        for line in printed:
            if line.startswith("ended"):
                assert line == "ended 0\n"
                return words
            words += [int(word) if word.isdecimal() else word for word in line.split()]
        raise AssertionError("the server has ended")

    yield run
    sent.close()
    server.wait()
