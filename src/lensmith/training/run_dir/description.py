"""run.json and splits.csv of a run folder: settings, labels, data, versions, and the part of each image."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lensmith.config import TrainSettings
from lensmith.core.csv_text import csv_text
from lensmith.core.files import atomic_write
from lensmith.core.result import plain
from lensmith.core.version import installed_versions
from lensmith.data.consensus import Contested
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import RunError
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.run_dir.refit import Refit

if TYPE_CHECKING:
    from lensmith.training.run_dir.run import Run

DESCRIPTION = "run.json"
SPLITS = "splits.csv"
VERSIONS = ("lensmith", "torch", "torchvision", "timm", "numpy", "pillow", "onnx", "onnxscript", "onnxruntime")


def write(run: Run) -> None:
    """Write splits.csv and then run.json, so a folder with the latter is complete."""
    images = run.images
    rows = (
        (s.path, images.labels[s.label], s.part, run.sizes[s.path], s.group, "" if s.fold is None else s.fold)
        for s in images.samples
    )
    columns = ("path", "label", "split", "bytes", "group", "fold")
    atomic_write(run.path / SPLITS, csv_text(columns, rows, optional=("group", "fold")))
    _write_json(
        run.path,
        {
            "settings": run.settings.model_dump(mode="json"),
            "labels": images.labels,
            "preprocessing": dataclasses.asdict(run.preprocessing),
            "weights": run.provenance,
            "data": {
                "root": str(images.root.resolve()),
                "source": str(run.source),
                "fingerprint": run.fingerprint,
                "parts": {part: len(images.part(part)) for part in images.parts},
                "notes": images.remarks,
                "contested": plain(images.contested),
                "excluded": images.excluded,
                "relabelled": images.relabelled,
            },
            "versions": installed_versions(VERSIONS),
            **({} if run.fold is None else {"fold": run.fold}),
        },
    )


def change_place(path: Path, settings: TrainSettings, source: Path, root: Path) -> None:
    """Write other settings and paths of the images into run.json."""
    stored = _read_json(path)
    data = {**stored["data"], "root": str(root), "source": str(source)}
    _write_json(path, {**stored, "settings": settings.model_dump(mode="json"), "data": data})


def add_refit(path: Path, refit: Refit) -> None:
    """Write what the folds of a cross-validation chose into run.json."""
    _write_json(path, {**_read_json(path), "refit": dataclasses.asdict(refit)})


def read(path: Path) -> dict[str, Any]:
    """The attributes of a run, but for its path, by name.

    Raises:
        RunError: `path` is no run folder, or its files are incomplete.
    """
    try:
        stored = _read_json(path)
        with (path / SPLITS).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        data, preprocessing = stored["data"], stored["preprocessing"]
        if "value_ranges" in preprocessing:  # runs from before took 16-bit values for full
            preprocessing["value_ranges"] = {kind: tuple(ends) for kind, ends in preprocessing["value_ranges"].items()}
        preprocessing |= {name: tuple(preprocessing[name]) for name in ("mean", "std")}
        return {
            "settings": TrainSettings.model_validate(stored["settings"]),
            "images": _images(tuple(stored["labels"]), data, rows),
            "preprocessing": Preprocessing(**preprocessing),
            "provenance": stored["weights"],
            "fingerprint": data["fingerprint"],
            "source": Path(data["source"]),
            "sizes": {row["path"]: int(row["bytes"]) for row in rows},
            "fold": stored.get("fold"),
            "refit": Refit.read(stored["refit"]) if "refit" in stored else None,
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        has_none = not (path / DESCRIPTION).exists()
        reason = f"It holds no {DESCRIPTION}" if has_none else f"It is not whole ({_reason(error)})"
        reason = reason if path.exists() else "There is none"
        raise RunError(
            f"A run folder that `lensmith train` made was expected at {path}.",
            f"{reason}.",
            "Check the path; `lensmith train DIR` makes one.",
        ) from error


def _images(labels: tuple[str, ...], data: dict[str, Any], rows: list[dict[str, str]]) -> ImageSet:
    index = {label: number for number, label in enumerate(labels)}
    samples = (
        Sample(
            row["path"],
            index[row["label"]],
            row["split"],  # type: ignore[arg-type]
            row.get("group", ""),
            int(row["fold"]) if row.get("fold") else None,
        )
        for row in rows
    )
    return ImageSet(
        Path(data["root"]),
        labels,
        tuple(samples),
        notes=tuple(data["notes"]),
        excluded=tuple(data.get("excluded", ())),  # runs from before corrections have none
        relabelled=tuple((path, before, after) for path, before, after in data.get("relabelled", ())),
        contested=tuple(map(Contested.of, data.get("contested", ()))),
    )


def _read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    return found


def _write_json(path: Path, content: dict[str, Any]) -> None:
    atomic_write(path / DESCRIPTION, json.dumps(content, indent=2) + "\n")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
