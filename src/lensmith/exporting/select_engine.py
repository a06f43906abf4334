"""Which engine a run's network is served with: the images it is settled on, PyTorch's answers, and the contest."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from lensmith.bundle.format import GRAPH, EngineRecord, Manifest
from lensmith.config import ExportSettings
from lensmith.data.scan import Sample
from lensmith.evaluation.evaluation import Evaluation
from lensmith.exporting.candidates import PLAIN, Material, candidates
from lensmith.exporting.evaluate_candidates import Contest, Trial
from lensmith.exporting.openvino_graph import CONTROL_IMAGES
from lensmith.exporting.parity import Parity
from lensmith.exporting.samples import prepared, spread
from lensmith.imaging.decode import read
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.selection import DEFAULT_DROP
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.loader import build_loader, default_loader_workers
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.run_dir.run import Run
from lensmith.training.validate import answers

CALIBRATION_IMAGES = 200
SPEED_IMAGES = 8


@dataclass(frozen=True)
class Chosen:
    """What came of a contest.

    Attributes:
        engines: all candidates' records, the chosen one first.
        evaluation: of the chosen one on `judged`, at temperature 1.
        parity: of those answers with PyTorch's.
        part: of the set that the images are from.
        judged: what each candidate answered.
        samples: all of that part.
    """

    engines: tuple[EngineRecord, ...]
    evaluation: Evaluation
    parity: Parity
    part: str
    judged: tuple[Sample, ...]
    samples: tuple[Sample, ...]


def choose(
    run: Run, model: nn.Module, folder: Path, manifest: Manifest, settings: ExportSettings, quick: bool
) -> Chosen:
    """Hold the contest for a run's network.

    Args:
        run: says which images there are.
        model: its network, in evaluation mode, on the CPU.
        folder: of the bundle; has the fp32 graph, and gets those of the others that may serve.
        manifest: of the bundle, as far as it is known.
        settings: the target and the limits.
        quick: try the plain engine alone.

    Raises:
        ParityError: the plain engine answers differently from PyTorch, or none is within the limits.
    """
    # A set too small for a validation part is judged on what it has.
    part = "val" if run.images.part("val") else "train"
    samples = run.images.part(part)  # type: ignore[arg-type]
    judged = samples if quick else spread(samples, settings.images)
    contest = Contest(
        folder=folder,
        manifest=manifest,
        images=run.images,
        samples=judged,
        part=part,
        reference=_reference(model, run, judged),
        tolerance=settings.tolerance,
        min_agreement=settings.min_agreement,
        max_drop=limit_of(settings),
    )
    trials = _plain(contest) if quick else _hold(contest, run, settings)
    evaluation, parity = trials[0].evaluation, trials[0].parity
    assert evaluation is not None  # the first is chosen, and has answered
    assert parity is not None
    return Chosen(tuple(trial.record for trial in trials), evaluation, parity, part, judged, samples)


def limit_of(settings: ExportSettings) -> float:
    """Accuracy that an engine may lose, in points of 100."""
    return DEFAULT_DROP if settings.max_accuracy_drop is None else settings.max_accuracy_drop


def _reference(model: nn.Module, run: Run, samples: Sequence[Sample]) -> Tensor:
    """PyTorch's probabilities of the samples that can be read."""
    device = torch.device("cpu")  # where the engines run
    dataset = ImageDataset(run.images, samples, run.preprocessing, None, run.settings.seed)
    workers = default_loader_workers(device) if run.settings.workers is None else run.settings.workers
    batches = build_loader(dataset, EpochSampler(len(samples), min(64, run.settings.batch_size), None), workers, device)
    logits = answers(model.to(memory_format=torch.channels_last), batches, device).logits
    probabilities: Tensor = logits.softmax(1).numpy()
    return probabilities


def _plain(contest: Contest) -> list[Trial]:
    """The plain engine alone, with the speed that it judged at."""
    trial = contest.attempt(PLAIN)
    assert trial.evaluation is not None  # or an error was raised
    speed = {
        "latency_ms": round(trial.evaluation.latency_ms, 3),
        "images_per_second": round(trial.evaluation.images_per_second, 2),
    }
    return contest.ordered([replace(trial, record=trial.record.model_copy(update=speed))])


def _hold(contest: Contest, run: Run, settings: ExportSettings) -> list[Trial]:
    """All candidates of the target."""
    how = run.preprocessing
    calibration, _ = prepared(run.images, run.images.part("train"), CALIBRATION_IMAGES, how)
    with tempfile.TemporaryDirectory(prefix="lensmith-") as scratch:
        material = Material(
            graph=contest.folder / GRAPH,
            scratch=Path(scratch),
            calibration=calibration,
            judged=lambda: prepared(run.images, contest.samples, CONTROL_IMAGES, how),
            max_drop=contest.max_drop,
        )
        encoded = [read(run.images.file(sample)) for sample in spread(contest.samples, SPEED_IMAGES)]
        return contest.hold(candidates(settings.target, material), encoded)
