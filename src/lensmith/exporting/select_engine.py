"""The engine search for a run: its images, PyTorch's reference answers, and the engine that is selected."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lensmith.bundle.format import GRAPH, Bundle, EngineRecord
from lensmith.config import ExportSettings
from lensmith.data.scan import Sample
from lensmith.evaluation.evaluation import Evaluation
from lensmith.exporting.candidates import BASELINE, GraphInputs, candidates
from lensmith.exporting.evaluate_candidates import CandidateResult, EngineSearch
from lensmith.exporting.openvino_graph import CONTROL_IMAGES
from lensmith.exporting.parity import Parity
from lensmith.exporting.samples import preprocess_samples, stratified
from lensmith.imaging.decode import read
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.selection import DEFAULT_MAX_DROP_PP
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.loader import build_loader, default_loader_workers
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.run_dir.run import Run
from lensmith.training.validate import compute_outputs

CALIBRATION_IMAGES = 200
SPEED_IMAGES = 8


@dataclass(frozen=True)
class SelectedEngine:
    """The engine search's result.

    Attributes:
        engines: all candidates' records, the selected one first.
        evaluation: answers of the selected engine to `evaluated`, at temperature 1.
        parity: differences of those answers from PyTorch's.
        part: name of the part that the images are from.
        evaluated: samples that each candidate answered.
        samples: all samples of the part.
    """

    engines: tuple[EngineRecord, ...]
    evaluation: Evaluation
    parity: Parity
    part: str
    evaluated: tuple[Sample, ...]
    samples: tuple[Sample, ...]


def select_engine(run: Run, model: nn.Module, draft: Bundle, settings: ExportSettings, quick: bool) -> SelectedEngine:
    """Search for the fastest engine that runs a network within the accuracy limit.

    Args:
        run: the run, which knows the images.
        model: the run's network, in evaluation mode, on the CPU.
        draft: the bundle's folder with the fp32 graph; gets the graphs of other candidates that may serve.
        settings: the target and the limits.
        quick: try the baseline alone.

    Raises:
        ParityError: the baseline answers differently from PyTorch, or no candidate is within the limits.
    """
    # A set too small for a validation part is evaluated on what it has.
    part = "val" if run.images.part("val") else "train"
    samples = run.images.part(part)  # type: ignore[arg-type]
    evaluated = samples if quick else stratified(samples, settings.images)
    search = EngineSearch(
        draft=draft,
        images=run.images,
        samples=evaluated,
        part=part,
        reference=_reference(model, run, evaluated),
        tolerance=settings.tolerance,
        min_agreement=settings.min_agreement,
        max_drop_pp=max_drop_pp(settings),
    )
    results = _baseline(search) if quick else _all_candidates(search, run, settings)
    evaluation, parity = results[0].evaluation, results[0].parity
    assert evaluation is not None  # the first is selected, and has answered
    assert parity is not None
    return SelectedEngine(tuple(each.record for each in results), evaluation, parity, part, evaluated, samples)


def max_drop_pp(settings: ExportSettings) -> float:
    """Accuracy that an engine may lose, in percentage points."""
    return DEFAULT_MAX_DROP_PP if settings.max_accuracy_drop is None else settings.max_accuracy_drop


def _reference(model: nn.Module, run: Run, samples: Sequence[Sample]) -> Tensor:
    """float32 (N, C): PyTorch's probabilities of the samples that can be read."""
    device = torch.device("cpu")  # where the engines run
    dataset = ImageDataset(run.images, samples, run.preprocessing, None, run.settings.seed)
    wanted = run.settings.loader_workers
    workers = default_loader_workers(device) if wanted is None else wanted
    batches = build_loader(dataset, EpochSampler(len(samples), min(64, run.settings.batch_size), None), workers, device)
    logits = compute_outputs(model.to(memory_format=torch.channels_last), batches, device).logits
    probabilities: Tensor = logits.softmax(1).numpy()
    return probabilities


def _baseline(search: EngineSearch) -> list[CandidateResult]:
    """The baseline alone, with the speed of its evaluation instead of a measurement."""
    result = search.evaluate(BASELINE)
    assert result.evaluation is not None  # or an error was raised
    latency_ms, images_per_second = result.evaluation.latency_ms, result.evaluation.images_per_second
    return search.ranked(
        [result.updated(latency_ms=round(latency_ms, 3), images_per_second=round(images_per_second, 2))]
    )


def _all_candidates(search: EngineSearch, run: Run, settings: ExportSettings) -> list[CandidateResult]:
    how = run.preprocessing
    calibration, _ = preprocess_samples(run.images, run.images.part("train"), CALIBRATION_IMAGES, how)
    with tempfile.TemporaryDirectory(prefix="lensmith-") as scratch:
        inputs = GraphInputs(
            graph=search.draft.path / GRAPH,
            scratch=Path(scratch),
            calibration=calibration,
            labelled=lambda: preprocess_samples(run.images, search.samples, CONTROL_IMAGES, how),
            max_drop_pp=search.max_drop_pp,
        )
        encoded = [read(run.images.file(sample)) for sample in stratified(search.samples, SPEED_IMAGES)]
        return search.run(candidates(settings.target, inputs), encoded)
