"""Physical limit of this machine: CPU time of decoding, normalising and inference of an image, in one thread.

`python bench/servers/limit.py BUNDLE IMAGES SECONDS` prints CPU seconds per image.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from lensmith.inference.classifier import load


def cpu_s(bundle: Path, images: Path, seconds: float, at_once: int = 1) -> float:
    """CPU seconds per image: the mean of `at_once` processes that run at the same time."""
    command = [sys.executable, __file__, str(bundle), str(images), str(seconds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    return sum(float(process.communicate()[0]) for process in running) / at_once


def main() -> None:
    bundle, folder, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    images = [file.read_bytes() for file in sorted(folder.iterdir())]
    classifier = load(bundle, threads=1)
    for encoded in images:
        classifier.classify(encoded)
    count, began, ends = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        classifier.classify(images[count % len(images)])
        count += 1
    print((time.process_time() - began) / count)


if __name__ == "__main__":
    main()
