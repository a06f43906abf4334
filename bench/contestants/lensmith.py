"""lensmith as a user runs it: the command `lensmith train`, from its start until the bundle is written.

Frozen: `--preset fast`, with as many epochs as the others and without early stopping; it may solve for the head instead
of taking them (`epochs_run`). Full, from pretrained weights: the command's defaults, with
one of the epochs for the head. Full, from random ones: the tutorial's optimizer, rate and augmentation, all layers
trained from the first step. Images a second are those of the epochs in which all layers are trained. The cache folder
is empty, so nothing from an earlier run is reused.
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
    """Flags of the command besides data, size and folder."""
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
    """Run the command, and report when each epoch ended."""
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
    result, lines = json.loads(printed), epochs(out)
    stepped = [line for line in lines if line["phase"] == "all"]
    for number, line in enumerate(lines):
        clock.report(seconds=seen.get(number, seconds), accuracy=line["val_accuracy"])
    clock.report(
        total_s=seconds,
        images_per_second=sum(line["images"] for line in stepped) / sum(line["seconds"] for line in stepped)
        if stepped
        else result["images_per_second"],
        head_s=seen.get(len(lines) - 1, seconds),
        bundle=str(out / "bundle"),
    )
    return out / "bundle"


def accuracy(bundle: Path, task: Task) -> float:
    """Accuracy of the bundle on the validation part, off the clock."""
    import lensmith

    classifier, correct, images = lensmith.load(bundle), 0, 0
    for name in task.classes:
        files = sorted((task.folder("val") / name).iterdir())
        correct += sum(answer.label == name for answer in classifier.predict(files))
        images += len(files)
    return correct / images


def epochs(run: Path) -> list[dict[str, Any]]:
    """Epoch events that the run has written so far."""
    events = run / "events.jsonl"
    if not events.is_file():
        return []
    whole = [line for line in events.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [event for event in map(json.loads, whole) if event["event"] == "epoch"]
