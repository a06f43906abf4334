"""Export: a run's best checkpoint → a finished bundle.

best.pt ─► graphs ─► each answers validation images ─► parity with PyTorch ─► speed ─► selection
        ─► confidence calibration ─► golden samples, report, model card ─► hashes
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lensmith.bundle import format as bundle
from lensmith.bundle import image_hashes
from lensmith.bundle.drift import Reference
from lensmith.bundle.format import Bundle, EngineRecord, Manifest
from lensmith.bundle.golden import Golden
from lensmith.config import ExportSettings
from lensmith.core import machine
from lensmith.core.files import replace_directory, staging_directory
from lensmith.core.packages import TRAINING, require_packages
from lensmith.core.result import Result, plain
from lensmith.core.stats import evenly_spaced
from lensmith.core.version import installed_versions
from lensmith.data.part_names import Part
from lensmith.evaluation import confidence
from lensmith.evaluation.confidence import TemperatureScaling
from lensmith.evaluation.cross_validation import as_entry
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.metrics import Ints, bootstrap, measure
from lensmith.evaluation.report import SelectionReport, write_report
from lensmith.evaluation.run import evaluate_samples
from lensmith.exporting.candidates import BASELINE
from lensmith.exporting.card import licences, write_card
from lensmith.exporting.formats.base import FormatExport, TrainedNetwork
from lensmith.exporting.formats.registry import FORMATS, packages_of, require_free, write_formats
from lensmith.exporting.image_hashes import copies_note, hashes_of, not_learnt
from lensmith.exporting.out_of_fold import evaluation_of_folds, with_group_interval
from lensmith.exporting.parity import Parity
from lensmith.exporting.run_figures import RunFigures
from lensmith.exporting.samples import features_of, formats_of, stratified
from lensmith.exporting.select_engine import select_engine, teacher_of
from lensmith.imaging.decoding import read
from lensmith.imaging.preprocessing import preprocess
from lensmith.inference.classifier import Classifier
from lensmith.inference.engine import open_graph
from lensmith.inference.selection import summary
from lensmith.training.models import backbone
from lensmith.training.models.onnx_export import write_graph
from lensmith.training.run_dir import checkpoint, description
from lensmith.training.run_dir.run import Run

GOLDEN_SAMPLES = 8
CHECKED = 64
"""Validation images, besides the golden ones, that each further format has to answer as PyTorch does."""

WITH_TARGET: dict[str, tuple[str, ...]] = {
    "cpu": (),
    "gpu": ("tensorrt", "triton"),
    "edge": ("edge",),
    "all": tuple(FORMATS),
}
"""Formats that a target adds to those that were asked for."""


@dataclass(frozen=True)
class ExportResult(Result):
    """A finished export.

    Attributes:
        bundle: the bundle's folder or zip.
        manifest: the content of bundle.json.
        parity: differences of the selected engine from PyTorch, on the images that all candidates answered.
        evaluation: the selected engine's answers on the validation part.
        formats: the other formats that were written.
        seconds: duration of the export, in seconds.
    """

    bundle: Path
    manifest: Manifest
    parity: Parity
    evaluation: Evaluation
    formats: tuple[FormatExport, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        manifest = self.manifest
        return {
            "bundle": str(self.bundle),
            **summary(manifest.engines),
            "accuracy": self.evaluation.metrics.accuracy,
            **{name: plain(getattr(manifest, name)) for name in ("teacher", "judged", "machine", "calibration")},
            "abstention": plain(manifest.abstention),
            "parity": self.parity.as_dict(),
            "formats": plain(self.formats),
            "seconds": self.seconds,
        }


def export(settings: ExportSettings, *, quick: bool = False) -> ExportResult:
    """Export the bundle of a run, whole or not at all.

    Args:
        settings: the run, the limits and the formats.
        quick: try the baseline engine alone.

    Raises:
        MissingPackageError: a package that the export or one of the formats needs is not installed.
        RunError: no run, or no checkpoint in it.
        ModelError: a network that has no ONNX graph.
        OutputError: the bundle's path is taken.
        ParityError: the network or an engine is worse than the run reported, beyond chance and the limit; or the graph
            or a format answers differently from PyTorch, beyond the tolerance. Nothing is written.
        SettingsError: a precision that abstaining cannot reach.
    """
    names = () if quick else tuple(dict.fromkeys((*settings.formats, *WITH_TARGET[settings.target])))
    require_packages(*TRAINING, *packages_of(names))
    started = time.perf_counter()
    assert settings.run is not None  # the settings' validation sees to it
    run = Run.open(settings.run)
    state = checkpoint.load(run.best, f"Finish an epoch first: lensmith train --resume {run.path}")
    target = settings.out or run.bundle
    others = target.with_name(f"{target.stem}-formats")
    if names:
        require_free(others, settings.overwrite)
    bundle.require_free(target, settings.overwrite)
    model = backbone.rebuild(run.settings, len(run.images.labels), state["model"])
    with staging_directory(target) as staging:
        manifest, parity, evaluation = _build(staging, run, model, state, settings, quick)
        made = bundle.seal(staging, manifest)
        formats: tuple[FormatExport, ...] = ()
        if names:  # before the bundle has its place, so that a format that answers differently leaves nothing
            network = TrainedNetwork.of(made, model, [read(file) for file in evenly_spaced(evaluation.files, CHECKED)])
            formats = write_formats(names, network, others, replace=settings.overwrite)
        if target.suffix == ".zip":
            made.pack(target)
        else:
            replace_directory(staging, target)
            made = Bundle(target, made.manifest)
    with suppress(OSError):  # a run that may only be read can be exported elsewhere
        run.record("exported", bundle=os.path.relpath(target, run.path), version=manifest.version)
    return ExportResult(target, made.manifest, parity, evaluation, formats, time.perf_counter() - started)


def _build(
    folder: Path, run: Run, model: nn.Module, best: dict[str, Any], settings: ExportSettings, quick: bool
) -> tuple[Manifest, Parity, Evaluation]:
    """Write all files of a bundle but bundle.json into a folder; `best` is the content of the best checkpoint."""
    epoch: int = best["epoch"]
    write_graph(model, run.preprocessing.image_size, folder / bundle.GRAPH, settings.features)
    left_out = run.left_out()
    identity: dict[str, Any] = {
        "name": settings.bundle_name or run.images.root.name,
        "version": f"{run.path.resolve().name}-{epoch}",
        "labels": run.images.labels,
        "preprocessing": run.preprocessing,
    }
    draft = Bundle(folder, Manifest(**identity, engines=(BASELINE.record(),)))
    part: Part = "val" if run.images.part("val") else "train"  # a small set has no validation part
    samples = run.images.part(part)
    # Of images that it learnt from, the engine search needs no more; the figures are the folds'.
    evaluated = samples if quick and run.refit is None else stratified(samples, settings.images)
    figures = RunFigures.of(run, best)
    results, limit_pp = select_engine(run, model, draft, settings, evaluated, part, quick, figures)
    engines, evaluation, parity = tuple(each.record for each in results), results[0].evaluation, results[0].parity
    assert evaluation is not None  # the first is selected, and has answered
    assert parity is not None
    classifier = _classifier(draft, engines[0])
    if len(evaluated) < len(samples) and run.refit is None:
        evaluation = evaluate_samples(classifier, run.images, samples, part)
    if figures is not None:
        paths = {run.images.file(sample): sample.path for sample in samples}
        right = evaluation.probabilities.argmax(axis=1) == evaluation.truth
        figures.require_answers([paths[file] for file in evaluation.files], right, limit_pp, len(evaluated))
    hashes = hashes_of(run)
    hashes.save(folder / image_hashes.FILE)
    own, figures_of_folds = evaluation, None
    fitted, counts = not_learnt(hashes, evaluation.files, part)
    if run.refit is not None:
        evaluation, figures_of_folds = evaluation_of_folds(run, own)
        fitted = np.arange(len(evaluation.files))
    scaling = confidence.scale(evaluation.truth[fitted], evaluation.probabilities[fitted])
    evaluation = _as_answered(evaluation, scaling, engines[0], settings.min_precision, fitted)
    if figures_of_folds is None:
        evaluation = replace(evaluation, held_out=counts, notes=(*evaluation.notes, *copies_note(counts, part)))
        found = bootstrap(evaluation.metrics.confusion)
    else:
        evaluation = with_group_interval(evaluation, figures_of_folds)
        found = {name: getattr(figures_of_folds, f"{name}_interval") for name in ("f1_macro", "balanced_accuracy")}
    intervals = {f"{name}_interval": list(ends) for name, ends in found.items()}
    manifest = Manifest(
        **identity,
        temperature=scaling.temperature,
        smoothing=scaling.smoothing,
        calibration=scaling.as_dict(),
        abstention=evaluation.abstention,
        engines=engines,
        judged={"part": part, "images": parity.images, "max_accuracy_drop": limit_pp},
        machine=machine.description(),
        teacher={} if quick else teacher_of(run, evaluated, part),
        metrics={
            "part": evaluation.part,
            "learnt": 0 if run.refit else counts.learnt,
            **evaluation.metrics.headline(),
            **intervals,
        },
        cross_validation=as_entry(figures_of_folds) if figures_of_folds else {},
        parity=parity.as_dict(),
        reference=Reference.of(
            evaluation.part,
            evaluation.probabilities[fitted],
            features_of(classifier, [evaluation.files[row] for row in fitted]) if settings.features else None,
        ),
        licence=licences(settings.licence, settings.data_licence, run.provenance, getattr(model, "pretrained_cfg", {})),
        formats=formats_of(run.images),
        dataset={
            "root": run.images.root.name,
            "fingerprint": run.fingerprint,
            "parts": {
                name: sum(sample.path not in left_out for sample in run.images.part(name)) for name in run.images.parts
            },
            "notes": list(run.images.remarks),
        },
        image_hashes=hashes.entry,
        recipe={**run.settings.model_dump(mode="json"), "initial_weights": run.provenance, "best_epoch": epoch},
        versions=installed_versions((*description.VERSIONS, "openvino", "nncf")),
    )
    _golden(Bundle(folder, manifest), evaluation.files).save(folder / bundle.GOLDEN, manifest.labels)
    rows = {file: row for row, file in enumerate(own.files)}
    report = SelectionReport(
        engines=engines,
        scaling=scaling,
        changed=tuple((rows[run.images.root / each.path], each.torch, each.margin) for each in parity.disagreements),
        per_class_change_pp=parity.per_class_change,
        images=parity.images,
        max_drop_pp=limit_pp,
        answers=None if figures_of_folds is None else own,
        cross_validation=figures_of_folds,
    )
    write_report(evaluation, folder / "report.html", report)
    write_card(folder / "README.md", manifest, evaluation, run)
    return manifest, parity, evaluation


def _classifier(opened: Bundle, record: EngineRecord) -> Classifier:
    scaling = opened.manifest.temperature, opened.manifest.smoothing
    graph = str(opened.path / str(record.graph))
    return Classifier(opened, open_graph(graph, record.engine, record.precision, 1, *scaling))


def _as_answered(
    evaluation: Evaluation, scaling: TemperatureScaling, record: EngineRecord, min_precision: float | None, rows: Ints
) -> Evaluation:
    """The answers that the finished bundle will give, with the engine's speed as it was measured, and abstention.

    The threshold is fitted to `rows`, those of images that the model did not learn from.
    """
    probabilities = confidence.scaled(evaluation.probabilities, scaling.temperature, scaling.smoothing)
    abstention = None
    if min_precision:
        abstention = confidence.threshold_for(evaluation.truth[rows], probabilities[rows], min_precision)
    return replace(
        evaluation,
        probabilities=probabilities,
        metrics=measure(evaluation.truth, probabilities),
        latency_ms=record.latency_ms or evaluation.latency_ms,
        images_per_second=record.images_per_second or evaluation.images_per_second,
        abstention=abstention,
    )


def _golden(made: Bundle, files: Sequence[Path]) -> Golden:
    """Real files with each engine's own answers, all in one batch as they will be verified."""
    images = tuple(read(file) for file in evenly_spaced(files, GOLDEN_SAMPLES))
    batch = np.stack([preprocess(image, made.manifest.preprocessing) for image in images])
    runnable = [record for record in made.manifest.engines if record.graph]
    found = {record.name: _classifier(made, record).engine.run(batch) for record in runnable}
    return Golden(images, found[runnable[0].name], found)
