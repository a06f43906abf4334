"""A run folder: what training leaves behind, and what export and resume find there.

run.json             settings as resolved, labels, preprocessing, where the data lies, versions
splits.csv           which image is in which part
events.jsonl         one line an epoch, and what else happened
curves.png           loss and accuracy
checkpoints/last.pt  to go on from
checkpoints/best.pt  the best epoch on the validation part
bundle/              what `lensmith export` made
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lensmith.bundle import installed_versions
from lensmith.config import TrainSettings
from lensmith.data.scan import ImageSet, Sample
from lensmith.errors import OutputError, RunError
from lensmith.image import Preprocessing

DESCRIPTION = "run.json"
VERSIONS = ("lensmith", "torch", "torchvision", "timm", "numpy", "pillow", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Run:
    """A run folder with what stands in run.json and splits.csv.

    Attributes:
        path: the folder.
        settings: as resolved.
        images: root, labels and the parts that the run was given.
        preprocessing: of the model.
        provenance: where its first weights came from.
        fingerprint: of the data when the run began.
    """

    path: Path
    settings: TrainSettings
    images: ImageSet
    preprocessing: Preprocessing
    provenance: str
    fingerprint: str

    @property
    def last(self) -> Path:
        """Checkpoint to go on from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def events(self) -> Path:
        """One JSON object a line."""
        return self.path / "events.jsonl"

    @property
    def curves(self) -> Path:
        """Picture of loss and accuracy by epoch."""
        return self.path / "curves.png"

    @property
    def bundle(self) -> Path:
        """Where the bundle goes unless told otherwise."""
        return self.path / "bundle"

    def create(self) -> Run:
        """Write the folder; the description comes last, so a folder with one is complete.

        Raises:
            OutputError: the folder holds something.
        """
        require_free(self.path)
        if self.path.resolve().is_relative_to(self.images.root.resolve()):
            raise OutputError(
                f"A run folder outside the images in {self.images.root} was expected.",
                f"{self.path} lies in it, and its pictures would be a class of the next run.",
                "Name another with --out.",
            )
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._write()
        except BaseException:  # half a folder could be neither used nor resumed
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        return self

    def _write(self) -> None:
        with (self.path / "splits.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "split"))
            writer.writerows((s.path, self.images.labels[s.label], s.part) for s in self.images.samples)
        description = {
            "settings": self.settings.model_dump(mode="json"),
            "labels": self.images.labels,
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "weights": self.provenance,
            "data": {
                "root": str(self.images.root.resolve()),
                "fingerprint": self.fingerprint,
                "parts": {part: len(self.images.part(part)) for part in self.images.parts},
                "notes": self.images.notes,
            },
            "versions": installed_versions(VERSIONS),
        }
        (self.path / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read a run folder.

        Raises:
            RunError: it is none.
        """
        try:
            description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
            labels = tuple(description["labels"])
            index = {label: number for number, label in enumerate(labels)}
            with (path / "splits.csv").open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            samples = tuple(Sample(row["path"], index[row["label"]], row["split"]) for row in rows)  # type: ignore[arg-type]
            data = description["data"]
            return cls(
                path=path,
                settings=TrainSettings.model_validate(description["settings"]),
                images=ImageSet(Path(data["root"]), labels, samples, notes=tuple(data["notes"])),
                preprocessing=_preprocessing(description["preprocessing"]),
                provenance=description["weights"],
                fingerprint=data["fingerprint"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            has_none = not (path / DESCRIPTION).exists()
            reason = f"It holds no {DESCRIPTION}" if has_none else f"It is not whole ({error!s})"
            reason = reason if path.exists() else "There is none"
            raise RunError(
                f"A run folder that `lensmith train` made was expected at {path}.",
                f"{reason}.",
                "Check the path; `lensmith train DIR` makes one.",
            ) from error

    def history(self) -> list[dict[str, Any]]:
        """The epoch lines of events.jsonl, the last one of each epoch.

        A line that a full disk or a power cut left unfinished is passed over: its epoch is run again, since the
        checkpoint comes after it.
        """
        if not self.events.exists():
            return []
        lines = []
        for text in self.events.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
        return list({line["epoch"]: line for line in lines if line["event"] == "epoch"}.values())


def require_free(path: Path) -> None:
    """Refuse a run folder that holds something.

    Raises:
        OutputError: it does.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        go_on = f", or go on with it: lensmith train --resume {path}" if (path / DESCRIPTION).exists() else ""
        raise OutputError(
            f"A free run folder was expected at {path}.", "It is in use.", f"Name another with --out{go_on}."
        )


def default_folder(settings: TrainSettings) -> Path:
    """runs/DATA-MODEL-TIME."""
    name = settings.data.resolve().stem
    return Path("runs") / f"{name}-{settings.model}-{datetime.now():%Y%m%d-%H%M%S}"


def _preprocessing(stored: dict[str, Any]) -> Preprocessing:
    return Preprocessing(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})
