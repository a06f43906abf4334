"""The engine search for a run: its images, PyTorch's reference answers, and the engine that is selected."""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lensmith.bundle.format import GRAPH, Bundle
from lensmith.config import ExportSettings
from lensmith.data.image_set import Sample
from lensmith.errors import LensmithError, ParityError
from lensmith.evaluation.held_out import held_out
from lensmith.evaluation.run import evaluate_samples
from lensmith.exporting.candidates import BASELINE, candidates
from lensmith.exporting.evaluate_candidates import CandidateResult, EngineSearch
from lensmith.exporting.openvino_graph import CONTROL_IMAGES
from lensmith.exporting.run_figures import RunFigures
from lensmith.exporting.samples import preprocess_samples, stratified
from lensmith.imaging.decoding import read
from lensmith.inference.benchmark import measure_all
from lensmith.inference.classifier import Classifier
from lensmith.inference.engine import open_record
from lensmith.inference.selection import DEFAULT_MAX_DROP_PP
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.loader import build_loader, default_loader_workers
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.run_dir.run import Run
from lensmith.training.validate import ModelOutputs, compute_outputs

CALIBRATION_IMAGES = 200
SPEED_IMAGES = 8
RECOMPUTED = 64
"""Images that PyTorch answers again, where the run recorded its answers to all of them."""


def select_engine(
    run: Run,
    model: nn.Module,
    draft: Bundle,
    settings: ExportSettings,
    samples: Sequence[Sample],
    part: str,
    quick: bool,
    figures: RunFigures | None,
) -> tuple[list[CandidateResult], float]:
    """Search for the fastest engine that runs a network within the accuracy limit.

    Args:
        run: the run, which knows the images.
        model: the run's network, in evaluation mode, on the CPU.
        draft: the bundle's folder with the fp32 graph; gets the graphs of other candidates that may serve.
        settings: the target and the limits.
        samples: samples that each candidate answers.
        part: name of the part that the samples are from.
        quick: try the baseline alone.
        figures: what the run reported of its best epoch; None: nothing.

    Returns:
        Results of all candidates, the selected one first, which has answers and their differences from PyTorch's; and
        the accuracy that an engine may lose against the run's figures, in percentage points: the limit, and what the
        network itself loses by chance.

    Raises:
        ParityError: the network answers differently from what the run reported, the baseline answers differently from
            PyTorch, or no candidate is within the limits.
    """

    def search_with(outputs: ModelOutputs) -> tuple[list[CandidateResult], float]:
        """Search with the network's outputs for the samples that can be read."""
        limit_pp = max_drop_pp(settings)
        if figures is not None:
            limit_pp += figures.require_network(outputs, samples, settings.max_accuracy_drop)
        reference = np.full((len(samples), len(draft.labels)), np.nan, dtype=np.float32)
        reference[outputs.indices] = outputs.logits.softmax(1).numpy()
        search = EngineSearch(
            draft=draft,
            images=run.images,
            samples=samples,
            part=part,
            reference=reference,
            tolerance=settings.tolerance,
            min_agreement=settings.min_agreement,
            max_drop_pp=limit_pp,
            figures=figures,
        )
        return _baseline(search) if quick else _all_candidates(search, run, settings), limit_pp

    recorded = figures and figures.outputs_of(samples)
    if figures and recorded and _answers_as_recorded(model, run, figures, samples, settings.tolerance):
        with suppress(ParityError):  # as where images have changed since: then PyTorch answers all of them
            return search_with(recorded)
    return search_with(_reference(model, run, samples))


def max_drop_pp(settings: ExportSettings) -> float:
    """Accuracy that an engine may lose, in percentage points."""
    return DEFAULT_MAX_DROP_PP if settings.max_accuracy_drop is None else settings.max_accuracy_drop


def teacher_of(run: Run, samples: Sequence[Sample], part: str) -> dict[str, Any]:
    """A distilled student's teacher, evaluated on the same images but those that it learnt from, for one table.

    Args:
        run: the student's run.
        samples: samples of the run that candidates are evaluated on.
        part: name of the part that the samples are from.

    Returns:
        The teacher's name, version, backbone, and its selected engine's record as measured now, as plain values for
        JSON; empty without a teacher, or where the teacher has no bundle that runs here.
    """
    if run.settings.teacher is None:
        return {}
    try:
        taught = Run.open(run.settings.teacher)
        bundle = Bundle.load(taught.bundle)
        record = bundle.records()[0]
        unknown, _ = held_out(bundle, run.images, samples, ("val",), name="the teacher")
        evaluation = evaluate_samples(
            Classifier(bundle, open_record(bundle, record, threads=1)), run.images, unknown, part
        )
        manifest = bundle.manifest
        (record,) = measure_all(bundle.path, [record], manifest.preprocessing, bundle.golden().images)
    except LensmithError as error:  # a table without it is better than none
        print(f"the teacher is not in the table: {error.arrived}", file=sys.stderr, flush=True)
        return {}
    why = "the teacher"
    if len(unknown) < len(samples):
        why += f", on the {len(unknown):,} of {len(samples):,} images that it did not learn from"
    record = record.model_copy(update={"accuracy": evaluation.metrics.accuracy, "drop": None, "why": why})
    return {
        "name": manifest.name,
        "version": manifest.version,
        "model": taught.settings.model,
        "engine": record.model_dump(mode="json", exclude={"chosen", "pareto"}),
    }


def _answers_as_recorded(
    model: nn.Module, run: Run, figures: RunFigures, samples: Sequence[Sample], tolerance: float
) -> bool:
    """Whether PyTorch's probabilities for some of the samples are those that the run recorded."""
    some = stratified(samples, RECOMPUTED)
    now, recorded = _reference(model, run, some), figures.outputs_of(some)
    assert recorded is not None
    differences = now.logits.softmax(1) - recorded.logits[now.indices].softmax(1)
    return bool(differences.abs().max() <= tolerance)


def _reference(model: nn.Module, run: Run, samples: Sequence[Sample]) -> ModelOutputs:
    """PyTorch's outputs for the samples that can be read."""
    device = torch.device("cpu")  # where the engines run
    dataset = ImageDataset(run.images, samples, run.preprocessing, None, run.settings.seed)
    wanted = run.settings.loader_workers
    workers = default_loader_workers(device) if wanted is None else wanted
    batches = build_loader(dataset, EpochSampler(len(samples), min(64, run.settings.batch_size), None), workers, device)
    return compute_outputs(model.to(memory_format=torch.channels_last), batches, device)


def _baseline(search: EngineSearch) -> list[CandidateResult]:
    """The baseline alone, with the speed of its evaluation instead of a measurement."""
    result = search.evaluate(BASELINE)
    assert result.evaluation is not None  # else an error was raised
    latency_ms, images_per_second = result.evaluation.latency_ms, result.evaluation.images_per_second
    return search.ranked(
        [result.updated(latency_ms=round(latency_ms, 3), images_per_second=round(images_per_second, 2))]
    )


def _all_candidates(search: EngineSearch, run: Run, settings: ExportSettings) -> list[CandidateResult]:
    how = run.preprocessing
    calibration, _ = preprocess_samples(run.images, run.images.part("train"), CALIBRATION_IMAGES, how)
    with tempfile.TemporaryDirectory(prefix="lensmith-") as scratch:
        found = candidates(
            settings.target,
            search.draft.path / GRAPH,
            calibration,
            labelled=lambda: preprocess_samples(run.images, search.samples, CONTROL_IMAGES, how),
            max_drop_pp=search.max_drop_pp,
            scratch=Path(scratch),
        )
        encoded = [read(run.images.file(sample)) for sample in stratified(search.samples, SPEED_IMAGES)]
        return search.run(found, encoded)
