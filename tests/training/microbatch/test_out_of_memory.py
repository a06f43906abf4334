"""A step in too little memory, for real: an address space that the whole batch does not fit into."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCARCE = Path(__file__).with_name("scarce.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_with_four_tenths_of_the_room_a_step_is_the_same_in_at_most_twice_the_fewest_chunks(tmp_path: Path) -> None:
    files = tmp_path / "whole.pt", tmp_path / "found.pt"
    done = subprocess.run(
        [sys.executable, SCARCE, *map(str, files)], check=True, capture_output=True, text=True, timeout=500
    )
    told = json.loads(done.stdout)
    hand, found = told["hand"]["chunks"], told["found"]
    assert hand > 1
    assert found["retries"] >= 1
    assert found["bytes"] <= told["room"]
    assert found["chunks"] <= 2 * hand
    for whole, chunked in zip(*(torch.load(file) for file in files), strict=True):
        assert (chunked - whole).norm() <= 1e-5 * whole.norm()
