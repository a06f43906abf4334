"""A run folder: what training writes, and what export and resume read.

run.json             resolved settings, labels, preprocessing, the data's paths, versions
splits.csv           part and size in bytes of each image
events.jsonl         one line an epoch, and other events
tracking.json        how much of it MLflow has received
curves.png           loss and accuracy
memory.png           memory and chunks
checkpoints/last.pt  the newest checkpoint; previous.pt is the one before, best.pt the best epoch's weights
image_hashes.npz     hashes of the images, from the first export on
needs.json           after memory ran out: what a machine that could train this would need
bundle/              the bundle that `lensmith export` made
folds/N/             of a cross-validation: the run of fold N, of which predictions.npz is left, no checkpoints
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lensmith.config import TrainSettings
from lensmith.core.output_names import require_folder_name
from lensmith.data.image_set import ImageSet
from lensmith.errors import OutputError
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.tracking import state
from lensmith.training.run_dir import description, lock
from lensmith.training.run_dir.checkpoint import LAST, PREVIOUS
from lensmith.training.run_dir.description import DESCRIPTION, SPLITS
from lensmith.training.run_dir.refit import Refit

PSEUDO_LABELS = "pseudo_labels.csv"
"""Unlabelled pictures that the head learnt from, with the labels that it gave them."""
EVENTS = "events.jsonl"
CHECKPOINTS = "checkpoints"
NEEDS = "needs.json"
FOLDS = "folds"
RUNS = Path("runs")


@dataclass(frozen=True)
class Run:
    """A run folder with the content of run.json and splits.csv.

    Attributes:
        path: the folder.
        settings: the resolved settings.
        images: the images' root, labels and parts.
        preprocessing: the model's preprocessing.
        provenance: the origin of the first weights.
        fingerprint: a hash of the data at the run's start.
        source: folder or CSV that the images were read from, absolute.
        sizes: file sizes at the run's start in bytes, by the sample's path.
        fold: the fold that validates, in the run of one fold of a cross-validation; None: any other run.
        refit: what the folds chose for a run on all images of a cross-validation; None: any other run, and before the
            folds are finished.
    """

    path: Path
    settings: TrainSettings
    images: ImageSet
    preprocessing: Preprocessing
    provenance: str
    fingerprint: str
    source: Path
    sizes: Mapping[str, int]
    fold: int | None = None
    refit: Refit | None = None

    @property
    def folds(self) -> Path:
        """The folder of the runs of a cross-validation's folds."""
        return self.path / FOLDS

    @property
    def last_epoch(self) -> int:
        """The largest number of epochs that the run can have."""
        return self.settings.epochs if self.refit is None else self.refit.epochs

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoints / LAST

    @property
    def best(self) -> Path:
        """Weights of the best epoch."""
        return self.checkpoints / "best.pt"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.last.exists() or (self.checkpoints / PREVIOUS).exists()

    @property
    def is_finished(self) -> bool:
        """Whether the training reached its end."""
        return bool(self.read_events("end"))

    @property
    def events(self) -> Path:
        """The events, one JSON object a line."""
        return self.path / EVENTS

    @property
    def curves(self) -> Path:
        """Picture of loss and accuracy by epoch."""
        return self.path / "curves.png"

    @property
    def bundle(self) -> Path:
        """The bundle's default path."""
        return self.path / "bundle"

    def start_command(self) -> str:
        """The command that starts this run again where nothing of it is left."""
        return f"lensmith train {self.source} --out {self.path} --resume auto"

    @classmethod
    def create(
        cls,
        path: Path,
        settings: TrainSettings,
        images: ImageSet,
        preprocessing: Preprocessing,
        provenance: str,
        fold: int | None = None,
    ) -> Run:
        """Make a run folder; the description comes last, so a folder with one is complete.

        Raises:
            OutputError: the folder is not empty, or lies in the image folder; beside a table it may lie anywhere.
        """
        require_free(path)
        if settings.data.is_dir() and path.resolve().is_relative_to(settings.data.resolve()):
            raise OutputError(
                f"A run folder outside the images in {settings.data} was expected.",
                f"{path} lies in it, and for other tools its plots would be a class of the next run.",
                "Name another with --out.",
            )
        sizes = {sample.path: size for sample, size in zip(images.samples, images.sizes, strict=True)}
        source = settings.data.resolve()
        run = cls(path, settings, images, preprocessing, provenance, images.fingerprint, source, sizes, fold)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        try:
            description.write(run)
        except BaseException:  # half a folder could be neither used nor resumed
            shutil.rmtree(path, ignore_errors=True)
            raise
        return run

    def with_settings(self, settings: TrainSettings, source: Path, root: Path) -> Run:
        """The same run with changed settings and paths of its images, in run.json too."""
        now = replace(self, settings=settings, source=source, images=replace(self.images, root=root))
        if (settings, source, root) != (self.settings, self.source, self.images.root):
            description.change_place(path=self.path, settings=settings, source=source, root=root)
        return now

    def with_refit(self, refit: Refit) -> Run:
        """The same run with what the folds chose, in run.json too."""
        description.add_refit(self.path, refit)
        return replace(self, refit=refit)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read a run folder.

        Raises:
            RunError: `path` is no run folder, or its files are incomplete.
        """
        return cls(path, **description.read(path))

    def history(self) -> list[dict[str, Any]]:
        """The epoch lines of events.jsonl, the last one of each epoch.

        A line that a full disk or a power cut left unfinished is ignored: its epoch is run again, since the
        checkpoint is written after it.
        """
        return list({line["epoch"]: line for line in self.read_events("epoch")}.values())

    def left_out(self) -> set[str]:
        """Paths of the files that could not be read, before the training or during it."""
        return {line["path"] for line in self.read_events("left_out")}

    def record(self, event: str, **fields: Any) -> None:
        """Append an event, on a line of its own even where the last one was left unfinished."""
        before = self._text()
        mend = "" if before.endswith("\n") or not before else "\n"
        with self.events.open("a", encoding="utf-8") as file:
            file.write(f"{mend}{json.dumps({'event': event, **fields, 'time': round(time.time(), 3)})}\n")

    def read_events(self, *names: str) -> list[dict[str, Any]]:
        """The events of these names, in order; unfinished lines are ignored."""
        lines = []
        for text in self._text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
        return [line for line in lines if line["event"] in names]

    def _text(self) -> str:
        # A power cut can leave anything at its end.
        return self.events.read_text(encoding="utf-8", errors="replace") if self.events.exists() else ""


def is_unbegun(path: Path) -> bool:
    """Whether `path` holds a run that was stopped before its first checkpoint, and nothing else."""
    names = (DESCRIPTION, SPLITS, EVENTS, lock.NAME, lock.RANKS, *state.FILES)
    ours = {*(path / name for name in names), path / CHECKPOINTS}
    # A killed process may leave the temporary file of an atomic write.
    return (path / CHECKPOINTS).is_dir() and all(
        file in ours or ".partial" in file.suffixes for file in path.rglob("*")
    )


def require_free(path: Path) -> None:
    """Refuse a run folder that is not empty, or that is named like a file.

    Raises:
        OutputError: the folder is not empty, or its name is a file's.
    """
    require_folder_name(path, "the run, with --out")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        resume = f", or resume it: lensmith train --resume {path}" if (path / DESCRIPTION).exists() else ""
        raise OutputError(
            f"A free run folder was expected at {path}.", "It is in use.", f"Name another with --out{resume}."
        )


def default_folder(settings: TrainSettings) -> Path:
    """The default run folder, runs/DATA-MODEL-TIME."""
    name = settings.data.resolve().stem
    return RUNS / f"{name}-{settings.model}-{datetime.now():%Y%m%d-%H%M%S}"
