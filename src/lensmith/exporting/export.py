"""A run's best checkpoint → a finished bundle.

best.pt ─► graphs ─► each answers validation images ─► parity with PyTorch ─► speed ─► choice
        ─► temperature ─► golden samples, report, card ─► hashes
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lensmith.bundle import format as bundle
from lensmith.bundle.format import Bundle, EngineRecord, Manifest
from lensmith.bundle.golden import Golden
from lensmith.config import ExportSettings
from lensmith.core import machine
from lensmith.core.version import installed_versions
from lensmith.evaluation import confidence
from lensmith.evaluation.engine_choice import Changed, Choice
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.intervals import bootstrap
from lensmith.evaluation.metrics import Metrics, measure
from lensmith.evaluation.report import write_report
from lensmith.evaluation.run import judge
from lensmith.exporting.candidates import PLAIN
from lensmith.exporting.card import licences, write_card
from lensmith.exporting.formats.base import Source, Written
from lensmith.exporting.formats.registry import FORMATS, require_free, write_formats
from lensmith.exporting.parity import Parity
from lensmith.exporting.reference import reference_of
from lensmith.exporting.samples import evenly
from lensmith.exporting.select_engine import choose, limit_of
from lensmith.exporting.teacher import teacher_of
from lensmith.imaging.decode import read
from lensmith.imaging.preprocessing import preprocess
from lensmith.inference.classifier import Classifier
from lensmith.inference.engine import open_graph
from lensmith.inference.selection import as_dict
from lensmith.training.models import backbone
from lensmith.training.models.onnx_export import write_graph
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import VERSIONS, Run

GOLDEN_SAMPLES = 8
CALIBRATION_IMAGES = 200
WITH_TARGET: dict[str, tuple[str, ...]] = {
    "cpu": (),
    "gpu": ("tensorrt", "triton"),
    "edge": ("edge",),
    "all": tuple(FORMATS),
}
"""Formats that come with a target unasked."""


@dataclass(frozen=True)
class Exported:
    """A bundle that was made.

    Attributes:
        bundle: the folder or zip.
        manifest: what stands in it.
        parity: of the chosen engine with PyTorch, on the images that candidates were judged on.
        evaluation: of the chosen engine on the validation part.
        formats: the other formats that were asked for.
        seconds: how long it took.
    """

    bundle: Path
    manifest: Manifest
    parity: Parity
    evaluation: Evaluation
    formats: tuple[Written, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        stored = self.manifest.model_dump(mode="json")
        return {
            "bundle": str(self.bundle),
            **as_dict(self.manifest.engines),
            "accuracy": self.evaluation.metrics.accuracy,
            "teacher": stored["teacher"],
            "judged": stored["judged"],
            "machine": stored["machine"],
            "calibration": stored["calibration"],
            "abstention": stored["abstention"],
            "parity": self.parity.as_dict(),
            "formats": [each.as_dict() for each in self.formats],
            "seconds": self.seconds,
        }


def export(settings: ExportSettings, *, quick: bool = False) -> Exported:
    """Make the bundle of a run; a finished one or none.

    Args:
        settings: what to make of which run.
        quick: try the plain engine alone.

    Raises:
        RunError: no run, or no checkpoint in it.
        ModelError: a network that has no ONNX graph.
        OutputError: the bundle's path is taken.
        ParityError: the graph answers differently from PyTorch, beyond the tolerance.
        SettingsError: a precision that abstaining cannot reach.
    """
    started = time.perf_counter()
    assert settings.run is not None  # as the settings see to
    run = Run.open(settings.run)
    state = checkpoint.load(run.best, f"Finish an epoch first: lensmith train --resume {run.path}")
    target = settings.out or run.bundle
    names = () if quick else tuple(dict.fromkeys((*settings.formats, *WITH_TARGET[settings.target])))
    others = target.with_name(f"{target.stem}-formats")
    if names:
        require_free(others, settings.overwrite)
    model = backbone.rebuild(run.settings, len(run.images.labels), state["model"])
    made: list[tuple[Manifest, Parity, Evaluation]] = []

    def build(folder: Path) -> Manifest:
        made.append(_fill(folder, run, model, state["epoch"], settings, quick))
        return made[-1][0]

    zipped = target.suffix == ".zip"
    if zipped:
        bundle.require_free(target, settings.overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        whole = bundle.write(Path(scratch) / "bundle" if zipped else target, build, replace=settings.overwrite)
        if zipped:
            whole.pack(target)
        formats = write_formats(names, Source.of(whole, model), others, replace=settings.overwrite) if names else ()
    with suppress(OSError):  # a run that may only be read can be exported elsewhere
        run.record("exported", bundle=os.path.relpath(target, run.path), version=made[0][0].version)
    return Exported(target, *made[0], formats, time.perf_counter() - started)


def _fill(
    folder: Path, run: Run, model: nn.Module, epoch: int, settings: ExportSettings, quick: bool
) -> tuple[Manifest, Parity, Evaluation]:
    write_graph(model, run.preprocessing.image_size, folder / bundle.GRAPH, settings.features)
    manifest = _describe(run, epoch, settings)
    chosen = choose(run, model, folder, manifest, settings, quick)
    engines, evaluation, parity = chosen.engines, chosen.evaluation, chosen.parity
    if len(chosen.judged) < len(chosen.samples):
        classifier = _classifier(folder, manifest, engines[0])
        evaluation = judge(classifier, run.images, chosen.samples, chosen.part)
    scaling = confidence.scale(evaluation.truth, evaluation.probabilities)
    evaluation = _at_temperature(evaluation, scaling.temperature, engines[0])
    manifest = manifest.model_copy(
        update={
            "engines": engines,
            "temperature": scaling.temperature,
            "calibration": scaling.as_dict(),
            "abstention": settings.min_precision
            and confidence.threshold_for(evaluation.truth, evaluation.probabilities, settings.min_precision),
            "judged": {"part": chosen.part, "images": parity.images, "max_accuracy_drop": limit_of(settings)},
            "machine": machine.description(),
            "teacher": {} if quick else teacher_of(run, run.images, chosen.judged, chosen.part),
            "metrics": {"part": chosen.part, **_measured(evaluation.metrics)},
            "parity": parity.as_dict(),
        }
    )
    evaluation = replace(evaluation, abstention=manifest.abstention)
    reference = reference_of(evaluation, _classifier(folder, manifest, engines[0]), settings.features)
    stated = licences(settings.licence, settings.data_licence, run.provenance, getattr(model, "pretrained_cfg", {}))
    manifest = manifest.model_copy(update={"reference": reference, "licence": stated})
    _golden(folder, manifest, evaluation.files).save(folder / bundle.GOLDEN, manifest.labels)
    write_report(evaluation, folder / "report.html", _told(manifest, parity, scaling, evaluation, run))
    write_card(folder / "README.md", manifest, evaluation, run)
    return manifest, parity, evaluation


def _describe(run: Run, epoch: int, settings: ExportSettings) -> Manifest:
    """All that is known before a graph has answered anything."""
    return Manifest(
        name=settings.name or run.images.root.name,
        version=f"{run.path.resolve().name}-{epoch}",
        labels=run.images.labels,
        preprocessing=run.preprocessing,
        engines=(PLAIN.record(),),
        dataset={
            "root": run.images.root.name,
            "fingerprint": run.fingerprint,
            "parts": {name: len(run.images.part(name)) for name in run.images.parts},
            "notes": list(run.images.notes),
        },
        recipe={**run.settings.model_dump(mode="json"), "initial_weights": run.provenance, "best_epoch": epoch},
        versions=installed_versions((*VERSIONS, "openvino", "nncf")),
    )


def _classifier(folder: Path, manifest: Manifest, record: EngineRecord) -> Classifier:
    engine = open_graph(str(folder / str(record.graph)), record.engine, record.precision, 1, manifest.temperature)
    return Classifier(Bundle(folder, manifest), engine)


def _at_temperature(evaluation: Evaluation, temperature: float, record: EngineRecord) -> Evaluation:
    """The same answers as the finished bundle will give them, with the engine's speed as it was measured."""
    probabilities = confidence.at_temperature(evaluation.probabilities, temperature)
    return replace(
        evaluation,
        probabilities=probabilities,
        metrics=measure(evaluation.truth, probabilities),
        latency_ms=record.latency_ms or evaluation.latency_ms,
        images_per_second=record.images_per_second or evaluation.images_per_second,
    )


def _measured(metrics: Metrics) -> dict[str, Any]:
    """The numbers of the whole set, each mean over classes with its interval."""
    intervals = bootstrap(metrics.confusion)
    return {**metrics.headline(), **{f"{name}_interval": list(ends) for name, ends in intervals.items()}}


def _golden(folder: Path, manifest: Manifest, files: Sequence[Path]) -> Golden:
    """Real files with each engine's own answers, all in one batch as they will be verified."""
    images = tuple(read(file) for file in evenly(files, GOLDEN_SAMPLES))
    batch = np.stack([preprocess(image, manifest.preprocessing) for image in images])
    runnable = [record for record in manifest.engines if record.graph]
    found = {record.name: _classifier(folder, manifest, record).engine.run(batch) for record in runnable}
    return Golden(images, found[manifest.engines[0].name], found)


def _told(manifest: Manifest, parity: Parity, scaling: confidence.Scaling, evaluation: Evaluation, run: Run) -> Choice:
    """What the report says of the choice."""
    rows = {file: row for row, file in enumerate(evaluation.files)}
    changed = tuple(
        Changed(rows[run.images.root / each.path], manifest.labels.index(each.torch), each.margin)
        for each in parity.disagreements
    )
    limit = manifest.judged["max_accuracy_drop"]
    return Choice(manifest.engines, scaling, changed, parity.per_class_change, parity.images, limit)
