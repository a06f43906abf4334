"""Broken, odd and hostile files, made from a seed: each is answered or refused, and none harms the service.

CI takes 20,000; LENSMITH_FUZZ=100000 so many.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest

from lensmith.bundle.format import Bundle
from lensmith.serving.child_process import ServiceProcess

SCRIPT = Path(__file__).parents[1] / "faults" / "mutated.py"
COUNT = int(os.environ.get("LENSMITH_FUZZ", "20000"))
PROCESSES = 2

pytestmark = pytest.mark.slow


def start(*args: object) -> subprocess.Popen[bytes]:
    # The script stands for a client, too: what it complains about on standard error is of no interest.
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def figures(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    found = json.loads(process.communicate(timeout=1800)[0])
    print(json.dumps(found))
    return dict(found)


@pytest.mark.timeout(1900)
def test_every_mutated_image_is_answered_or_refused_in_bounded_time_and_memory(colour_bundle: Bundle) -> None:
    each = -(-COUNT // PROCESSES)
    running = [start(colour_bundle.path, "--count", each, "--seed", seed) for seed in range(PROCESSES)]
    for found in map(figures, running):
        assert found["faults"] == []
        assert found["images"] >= each
        assert set(found["statuses"]) == {"200", "415", "422"}
        assert min(found["statuses"].values()) > each / 100  # all of it was really tried
        # CPU time of an image of at most 50 million pixels; measured 1 s.
        assert found["slowest_cpu_s"] < 10
        # The allocator keeps some of what large pictures took; what counts is that this does not go on.
        half = len(found["rss_mb"]) // 2
        assert median(found["rss_mb"][half:]) < median(found["rss_mb"][:half]) + 150
        assert found["peak_mb"] < 1000


@pytest.mark.timeout(900)
def test_a_real_service_survives_them_is_ready_afterwards_and_logs_no_line_of_them(
    colour_bundle: Bundle, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "lensmith", "serve", str(colour_bundle.path), "--port=0", "--threads=1"]
    with (tmp_path / "stderr").open("wb") as log:
        process = subprocess.Popen([*command, "--deadline-ms=600000"], stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    with ServiceProcess(process.stdout.readline().split()[-1], process) as service:
        found = figures(start(colour_bundle.path, "--count", COUNT // 8, "--large", "--seed", 2, "--url", service.url))
        assert found["faults"] == []
        assert set(found["statuses"]) <= {"200", "400", "413", "415", "422"}
        again = figures(start(colour_bundle.path, "--count", 1000, "--seed", 3, "--url", service.url))
        assert again["faults"] == []  # ready, and right
        assert process.poll() is None
        memory = psutil.Process(process.pid).memory_info()
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        assert peak is not None
        print(f"resident {memory.rss / 1e6:.0f} MB, at most {int(peak[1]) / 1e3:.0f} MB")
        # A picture of 50 million pixels takes 400 MB for a moment.
        assert int(peak[1]) < 1_000_000
        assert memory.rss < 700_000_000  # of which the allocator keeps most for the next large picture
        # How it started is told, and what is no HTTP at all, such as a header with a control character.
        told = (" INFO lensmith.serving.server.server: run to completion", "Invalid HTTP request")
        written = (tmp_path / "stderr").read_text().splitlines()
        assert [line for line in written if not any(each in line for each in told)] == []
