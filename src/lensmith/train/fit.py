"""From settings to a trained run folder, anew or from its last checkpoint."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from lensmith.config import TrainSettings
from lensmith.data.scan import ImageSet
from lensmith.data.split import prepare
from lensmith.errors import DataError, RunError, SettingsError
from lensmith.train import backbone, checkpoint
from lensmith.train.loop import Loop
from lensmith.train.run import Run, default_folder, require_free
from lensmith.train.step import Learner


@dataclass(frozen=True)
class Fitted:
    """What a finished run came to.

    Attributes:
        run: its folder.
        best_epoch: 1-based.
        epochs: how many were run.
        steps: how many were taken.
        metrics: val_loss and val_accuracy of the best epoch; None where there was nothing to validate on.
        images_per_second: training throughput over all epochs.
    """

    run: Run
    best_epoch: int
    epochs: int
    steps: int
    metrics: dict[str, float | None]
    images_per_second: float

    @classmethod
    def read(cls, run: Run) -> Fitted:
        """Sum up a run's events."""
        history = run.history()
        best = [line for line in history if line["best"]][-1]
        images, seconds = sum(line["images"] for line in history), sum(line["seconds"] for line in history)
        return cls(
            run=run,
            best_epoch=best["epoch"],
            epochs=len(history),
            steps=history[-1]["step"],
            metrics={"val_loss": best["val_loss"], "val_accuracy": best["val_accuracy"]},
            images_per_second=images / max(seconds, 1e-9),
        )


def fit(settings: TrainSettings) -> Fitted:
    """Train as `settings` say, in a new run folder.

    Raises:
        DataError: the images cannot be trained on.
        ModelError: the backbone or its weights cannot be had.
        OutputError: the run folder is in use.
        RunInterruptedError: Ctrl-C or SIGTERM; the run is saved.
    """
    device = _device(settings.device)
    out = settings.out or default_folder(settings)
    require_free(out)
    images = prepare(settings.data, settings.split, settings.seed)
    _check(images)
    torch.manual_seed(settings.seed)
    network = backbone.build(settings, len(images.labels))
    run = Run(
        path=out,
        settings=settings,
        images=images,
        preprocessing=network.preprocessing,
        provenance=network.provenance,
        fingerprint=images.fingerprint,
    )
    run.create()
    with _removed_if_never_begun(run):
        Loop(run, Learner(network, settings, run.preprocessing, device)).run()
    return Fitted.read(run)


def resume(path: Path) -> Fitted:
    """Go on with the run in `path` from its last checkpoint.

    Raises:
        RunError: no run, no checkpoint, or the data has changed since.
        RunInterruptedError: stopped again.
    """
    run = Run.open(path)
    if run.images.fingerprint != run.fingerprint:
        changed = "Files were removed or changed since" if run.images.root.exists() else "The folder is gone"
        raise RunError(
            f"The data that the run {path} began with was expected in {run.images.root}.",
            f"{changed}.",
            "Put them back, or train anew into another folder.",
        )
    # The checkpoint holds every weight, so none are fetched.
    bare = run.settings.model_copy(update={"pretrained": False, "weights": None})
    network = backbone.build(bare, len(run.images.labels))
    loop = Loop(run, Learner(network, run.settings, run.preprocessing, _device(run.settings.device)))
    loop.restore(checkpoint.load(run.last))
    loop.run()
    return Fitted.read(run)


@contextmanager
def _removed_if_never_begun(run: Run) -> Iterator[None]:
    """A run folder without a first checkpoint can be neither resumed nor used again, so it goes."""
    try:
        yield
    except BaseException:
        if not run.last.exists():
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def _device(name: str) -> torch.device:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus))]
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if name not in here:
        raise SettingsError(
            f"A device that this machine has was expected: {', '.join(here)}.",
            f"{name!r} arrived.",
            "Use one of them, or let lensmith choose; `lensmith doctor` tells more.",
        )
    return torch.device(name)


def _check(images: ImageSet) -> None:
    """Every class needs an image to learn from, and another to be judged by."""
    total = Counter(sample.label for sample in images.samples)
    training = Counter(sample.label for sample in images.part("train"))
    for found, wanted, what in ((total, 2, "images"), (training, 1, "training image")):
        short = [label for number, label in enumerate(images.labels) if found[number] < wanted]
        if short:
            names = ", ".join(short[:10]) + (f" and {len(short) - 10} more" if len(short) > 10 else "")
            raise DataError(
                f"Every class was expected to have at least {wanted} {what}.",
                f"There are fewer in: {names}.",
                "Add images to these classes, or remove their folders.",
            )
