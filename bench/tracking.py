"""The cost of tracking: the same training with and without it, in turn, as whole `lensmith train` commands.

    python bench/tracking.py [--epochs 40] [--pairs 3] [--uri URI] [--quick]

A figure is the median over pairs of neighbours, so that a machine that slows down slows both; the order turns from
pair to pair. Tracked runs go into an existing SQLite file, as from the second training on. The uploader
process's own time is measured separately, on a finished run: its cost on a machine whose cores are all busy.
`--quick` trains for some seconds, where fixed costs dominate; the ratio is meaningful for minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES, PER_CLASS, SIDE = 4, 60, 128
STORE = "from lensmith.registry import client; import sys; client.client(sys.argv[1])"


def pictures(folder: Path) -> Path:
    """Noise in colours, a folder a class."""
    chance = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
        for number in range(PER_CLASS):
            noise = chance.normal(60 * label, 40, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / str(label) / f"{number}.jpg")
    return folder


def train(given: argparse.Namespace, data: Path, out: Path, tracking: str) -> dict[str, Any]:
    """One command: its seconds, and those in the epochs."""
    command = [
        sys.executable,
        "-m",
        "lensmith",
        "train",
        str(data),
        "--out",
        str(out),
        "--tracking",
        tracking,
        "--json",
    ]
    command += ["--model", given.model, "--no-pretrained", "--image-size", str(given.image_size)]
    command += ["--epochs", str(given.epochs), "--head-epochs", "0", "--patience", str(given.epochs)]
    started = time.perf_counter()
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    epochs = sum(line["seconds"] for line in lines if line["event"] == "epoch")
    tracked = json.loads(said)["tracking"]
    return {"seconds": seconds, "epoch_seconds": epochs, "complete": bool(tracked and tracked["complete"])}


def side_process(run: Path, uri: str) -> dict[str, float]:
    """What it takes to send a whole run: seconds of a core, and memory."""
    (run / "tracking.json").unlink()
    note = "from lensmith.tracking.state import TrackingState; import sys, pathlib; run = pathlib.Path(sys.argv[1]); "
    subprocess.run(
        [sys.executable, "-c", f"{note}TrackingState.new(sys.argv[2], run).write(run)", str(run), uri], check=True
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "lensmith.tracking.uploader", str(run)]
    subprocess.run(command, input=f"{uri}\n".encode(), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--uri", help="where to track; a SQLite file by default")
    parser.add_argument("--quick", action="store_true", help="one pair, of some seconds")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.model, given.image_size, given.epochs, given.pairs = "test_resnet", 32, 4, 1
    os.environ.pop("LENSMITH_TRAIN_TRACKING", None)
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data, uri = pictures(folder / "data"), given.uri or f"sqlite:///{folder / 'mlflow.db'}"
        subprocess.run([sys.executable, "-c", STORE, uri], check=True)
        for number in range(given.pairs):
            ways = {"without": "none", "with": uri}
            order = list(ways) if number % 2 == 0 else list(ways)[::-1]
            pairs.append({way: train(given, data, folder / f"{way}-{number}", ways[way]) for way in order})
        side = side_process(folder / "with-0", uri)
    ratios = {
        name: statistics.median(pair["with"][name] / pair["without"][name] for pair in pairs)
        for name in ("seconds", "epoch_seconds")
    }
    extra_s = statistics.median(pair["with"]["seconds"] - pair["without"]["seconds"] for pair in pairs)
    found = {
        "bench": "tracking", "ratio": ratios["seconds"], "ratio_of_epochs": ratios["epoch_seconds"],
        "extra_seconds": extra_s, "side_process": side, "pairs": pairs, "model": given.model, "epochs": given.epochs,
        "image_size": given.image_size, "load_average": os.getloadavg()[0],
    }  # fmt: skip
    if given.json:
        print(json.dumps(found))
        return
    for pair in pairs:
        print("  ".join(f"{way} {one['seconds']:.1f} s ({one['epoch_seconds']:.1f})" for way, one in pair.items()))
    print(f"with tracking × {ratios['seconds']:.4f}, its epochs alone × {ratios['epoch_seconds']:.4f}")
    print(f"{extra_s:+.1f} s a training; the side process takes {side['cpu_seconds']:.1f} s of a core")


if __name__ == "__main__":
    main()
