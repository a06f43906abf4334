"""A run's best checkpoint → a finished bundle.

best.pt ─► graph ─► engine over the validation part ─► parity with PyTorch ─► golden samples, report, card ─► hashes
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import nn

from lensmith import bundle
from lensmith.bundle import Bundle, EngineRecord, Golden, Manifest
from lensmith.classifier import Classifier
from lensmith.config import ExportSettings
from lensmith.data.scan import Sample
from lensmith.engine import open_graph
from lensmith.evaluate.evaluation import Evaluation
from lensmith.evaluate.report import write_report
from lensmith.evaluate.run import judge
from lensmith.export.parity import Parity, compare
from lensmith.graph import write_graph
from lensmith.image import read
from lensmith.train.folder import checkpoint
from lensmith.train.folder.run import VERSIONS, Run
from lensmith.train.images.dataset import Images, Order, default_workers, loader
from lensmith.train.network import backbone
from lensmith.train.validate import answers

GOLDEN_SAMPLES = 8
GOLDEN_TOLERANCE = 1e-3
"""Of a probability, in fp32: another machine sums in another order, and no more than that."""


@dataclass(frozen=True)
class Exported:
    """A bundle that was made.

    Attributes:
        bundle: the folder or zip.
        parity: of the graph with PyTorch.
        evaluation: of the graph's engine on the validation part.
        seconds: how long it took.
    """

    bundle: Path
    parity: Parity
    evaluation: Evaluation
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "bundle": str(self.bundle),
            "engine": self.evaluation.engine,
            "precision": self.evaluation.precision,
            "accuracy": self.evaluation.metrics.accuracy,
            "latency_ms": self.evaluation.latency_ms,
            "parity": self.parity.as_dict(),
            "seconds": self.seconds,
        }


def export(settings: ExportSettings) -> Exported:
    """Make the bundle of a run; a finished one or none.

    Raises:
        RunError: no run, or no checkpoint in it.
        OutputError: the bundle's path is taken.
        ParityError: the graph answers differently from PyTorch, beyond the tolerance.
    """
    started = time.perf_counter()
    run = Run.open(settings.run)
    state = checkpoint.load(run.best, f"Finish an epoch first: lensmith train --resume {run.path}")
    target = settings.out or run.bundle
    made: list[tuple[Parity, Evaluation]] = []

    def build(folder: Path) -> Manifest:
        manifest, parity, evaluation = _fill(folder, run, state, settings)
        made.append((parity, evaluation))
        return manifest

    if target.suffix == ".zip":
        bundle.require_free(target, settings.overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            bundle.write(Path(scratch) / "bundle", build).pack(target)
    else:
        bundle.write(target, build, replace=settings.overwrite)
    parity, evaluation = made[0]
    return Exported(target, parity, evaluation, time.perf_counter() - started)


def _fill(
    folder: Path, run: Run, state: dict[str, Any], settings: ExportSettings
) -> tuple[Manifest, Parity, Evaluation]:
    model = backbone.rebuild(run.settings, len(run.images.labels), state["model"])
    graph = write_graph(model, run.preprocessing.image_size, folder / bundle.GRAPH)
    manifest = _describe(run, state["epoch"], graph, settings)
    (record,) = manifest.engines
    engine = open_graph(str(graph), record.engine, record.precision, threads=1)
    # A set too small for a validation part is judged on what it has.
    part = "val" if run.images.part("val") else "train"
    samples = run.images.part(part)  # type: ignore[arg-type]
    evaluation = judge(Classifier(Bundle(folder, manifest), engine), run.images, samples, part)
    parity = _parity(model, run, samples, evaluation)
    parity.require(settings.tolerance, settings.min_agreement)
    measured = {"accuracy": evaluation.metrics.accuracy, "latency_ms": round(evaluation.latency_ms, 3)}
    manifest = manifest.model_copy(
        update={
            "engines": (record.model_copy(update=measured),),
            "metrics": {"part": part, **evaluation.metrics.headline()},
            "parity": parity.as_dict(),
        }
    )
    _golden(evaluation).save(folder / bundle.GOLDEN, manifest.labels)
    write_report(evaluation, folder / "report.html")
    _write_card(folder / "README.md", manifest, evaluation)
    return manifest, parity, evaluation


def _describe(run: Run, epoch: int, graph: Path, settings: ExportSettings) -> Manifest:
    """All that is known before the graph has answered anything."""
    record = EngineRecord(
        engine="onnxruntime",
        precision="fp32",
        graph=graph.name,
        bytes=graph.stat().st_size,
        golden_tolerance=GOLDEN_TOLERANCE,
        chosen=True,
        why="the only candidate",
    )
    return Manifest(
        name=settings.name or run.images.root.name,
        version=f"{run.path.resolve().name}-{epoch}",
        labels=run.images.labels,
        preprocessing=run.preprocessing,
        engines=(record,),
        dataset={
            "root": run.images.root.name,
            "fingerprint": run.fingerprint,
            "parts": {name: len(run.images.part(name)) for name in run.images.parts},
            "notes": list(run.images.notes),
        },
        recipe={**run.settings.model_dump(mode="json"), "initial_weights": run.provenance, "best_epoch": epoch},
        versions=bundle.installed_versions(VERSIONS),
    )


def _parity(model: nn.Module, run: Run, samples: Sequence[Sample], evaluation: Evaluation) -> Parity:
    device = torch.device("cpu")  # where the engine ran
    dataset = Images(run.images, samples, run.preprocessing, None, run.settings.seed)
    workers = default_workers(device) if run.settings.workers is None else run.settings.workers
    batches = loader(dataset, Order(len(samples), min(64, run.settings.batch_size), None), workers, device)
    reference = answers(model.to(memory_format=torch.channels_last), batches, device)
    paths = [samples[index].path for index in reference.indices]
    return compare(reference.logits.softmax(1).numpy(), evaluation.probabilities, paths, run.images.labels)


def _golden(evaluation: Evaluation) -> Golden:
    """Real files spread over the classes, with the engine's own answers."""
    count = len(evaluation.files)
    samples = min(GOLDEN_SAMPLES, count)
    rows = [number * count // samples for number in range(samples)]
    return Golden(tuple(read(evaluation.files[row]) for row in rows), evaluation.probabilities[rows])


def _write_card(path: Path, manifest: Manifest, evaluation: Evaluation) -> None:
    environment = Environment(  # Markdown, so nothing is to be escaped for HTML
        loader=PackageLoader("lensmith.export"), autoescape=False, undefined=StrictUndefined, trim_blocks=True
    )
    path.write_text(environment.get_template("card.md.j2").render(b=manifest, e=evaluation), encoding="utf-8")
