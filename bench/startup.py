"""How long `lensmith --help` takes, against importing typer and rich alone.

    python bench/startup.py [--json] [--runs 20]

Both are whole processes, in turn, so that a noisy machine is noisy for both; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    commands = {
        "lensmith --help": [str(Path(sys.executable).with_name("lensmith")), "--help"],
        "import typer, rich": [sys.executable, "-c", "import typer, rich"],
        "import lensmith": [sys.executable, "-c", "import lensmith"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(options.runs + 1):
        for name, command in commands.items():
            took = seconds(command)
            if run:  # the first pays for a cold disk
                times[name].append(took)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    ratio = medians["lensmith --help"] / medians["import typer, rich"]
    if options.json:
        print(json.dumps({"bench": "startup", "seconds": medians, "help_vs_typer_rich": round(ratio, 2)}))
        return
    for name, median in medians.items():
        print(f"{name:20} {1e3 * median:7.1f} ms")
    print(f"{'ratio':20} {ratio:7.2f}  (at most 3)")


if __name__ == "__main__":
    main()
