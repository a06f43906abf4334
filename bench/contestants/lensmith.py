"""lensmith as a user runs it: the command `lensmith train`, from its start until the bundle is written.

Frozen: `--preset fast`, told of as many epochs as the others and never to stop early; whether it takes them, or finds
the head in another way, is its own affair (`epochs_run`). Full, from pretrained weights: the command's defaults, with
one of the epochs for the head. Full, from random ones: the tutorial's optimizer, rate and augmentation, everything
learning from the first step. Images a second are those of the epochs in which everything learns. The cache folder is a
new one, so nothing from an earlier run is at hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contestants.task import Clock, Task


def flags(task: Task) -> list[str]:
    """What the command is given beside the data, the size and the folder."""
    whole = ["--patience", str(task.epochs)]
    if task.frozen:
        return ["--preset", "fast", *whole]
    if task.pretrained:
        return ["--augment", "flip", "--head-epochs", str(min(1, task.epochs - 1)), *whole]
    return [
        *("--no-pretrained", "--weights", task.weights, "--head-epochs", "0", "--batch-norm", "train"),
        *("--optimizer", "sgd", "--lr", "0.001", "--backbone-lr-ratio", "1", "--weight-decay", "0"),
        *("--schedule", "constant", "--warmup", "0", "--label-smoothing", "0", "--augment", "flip", *whole),
    ]


def run(task: Task, clock: Clock) -> Path:
    """Run the command, and tell of each epoch when it was over."""
    out, cache = Path(task.out) / "run", Path(task.out) / "cache"
    command = [
        *(str(Path(sys.executable).with_name("lensmith")), "train", task.data, "--model", task.model, "--json"),
        *("--epochs", str(task.epochs), "--batch-size", str(task.batch_size), "--image-size", str(task.image_size)),
        *("--resize", "squash", "--seed", str(task.seed), "--out", str(out), "--device", task.device),
        *flags(task),
    ]
    started = time.perf_counter()
    with subprocess.Popen(
        command, env={**os.environ, "LENSMITH_CACHE": str(cache)}, stdout=subprocess.PIPE, text=True
    ) as process:
        seen: dict[int, float] = {}
        while process.poll() is None:
            for number in range(len(seen), len(epochs(out))):
                seen[number] = time.perf_counter() - started
            time.sleep(0.1)
        printed = process.stdout.read() if process.stdout else ""
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"lensmith train ended with {process.returncode}")
    told, lines = json.loads(printed), epochs(out)
    stepped = [line for line in lines if line["phase"] == "all"]
    for number, line in enumerate(lines):
        clock.tell(seconds=seen.get(number, seconds), accuracy=line["val_accuracy"])
    clock.tell(
        total_s=seconds,
        images_per_second=sum(line["images"] for line in stepped) / sum(line["seconds"] for line in stepped)
        if stepped
        else told["images_per_second"],
        head_s=seen.get(len(lines) - 1, seconds),
        bundle=str(out / "bundle"),
    )
    return out / "bundle"


def judge(bundle: Path, task: Task) -> float:
    """Share of right answers of the bundle on the validation part, off the clock."""
    import lensmith

    classifier, right, images = lensmith.load(bundle), 0, 0
    for name in task.classes:
        files = sorted((task.folder("val") / name).iterdir())
        right += sum(answer.label == name for answer in classifier.predict(files))
        images += len(files)
    return right / images


def epochs(run: Path) -> list[dict[str, Any]]:
    """What the run has written of its epochs so far."""
    events = run / "events.jsonl"
    if not events.is_file():
        return []
    whole = [line for line in events.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [told for told in map(json.loads, whole) if told["event"] == "epoch"]
