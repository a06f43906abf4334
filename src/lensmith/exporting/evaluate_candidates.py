"""Engine search: candidates are built, evaluated through the serving path, compared with PyTorch, timed and ranked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lensmith.bundle.format import Bundle, EngineRecord
from lensmith.core.helper_process import HelperError
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import MissingPackageError, ParityError
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.run import evaluate_samples
from lensmith.exporting.candidates import BASELINE, Candidate
from lensmith.exporting.parity import Parity, compare
from lensmith.exporting.run_figures import RunFigures
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.benchmark import measure_all
from lensmith.inference.classifier import Classifier
from lensmith.inference.engine import open_graph
from lensmith.inference.selection import may_serve, select


@dataclass(frozen=True)
class CandidateResult:
    """Measurements of one candidate.

    Attributes:
        candidate: the engine and precision that were tried.
        record: the candidate's measurements; without a graph where it may not serve.
        evaluation: the candidate's answers at temperature 1; None where it has none.
        parity: differences of those answers from PyTorch's; None where there are no answers.
    """

    candidate: Candidate
    record: EngineRecord
    evaluation: Evaluation | None = None
    parity: Parity | None = None

    def updated(self, **measured: object) -> CandidateResult:
        """A copy of the result with other values in its record."""
        return replace(self, record=self.record.model_copy(update=measured))


@dataclass(frozen=True)
class EngineSearch:
    """The images, the reference answers and the limits that all candidates are tried with.

    Attributes:
        draft: the bundle's folder, where graphs go, with a manifest that says how its graphs are used.
        images: the image set.
        samples: samples of the set that each candidate answers.
        part: name of the part that the samples are from.
        reference: float32 (N, C), PyTorch's probabilities of the N samples; NaN for those that cannot be read.
        tolerance: largest difference of a probability that fp32 may show.
        min_agreement: smallest share of images with the same class in fp32, 0..1.
        max_drop_pp: accuracy that may be lost, in percentage points.
        figures: what the run reported, which accuracy is lost against; None: PyTorch's answers now.
    """

    draft: Bundle
    images: ImageSet
    samples: Sequence[Sample]
    part: str
    reference: Tensor
    tolerance: float
    min_agreement: float
    max_drop_pp: float
    figures: RunFigures | None = None

    def run(self, candidates: Sequence[Candidate], encoded: Sequence[bytes]) -> list[CandidateResult]:
        """Try all candidates and rank them, the selected one first. Graphs of those that may not serve are removed.

        A candidate that is fast but loses too much accuracy is built anew with more layers excluded from quantization,
        as long as it would be selected.

        Args:
            candidates: engines to try; `BASELINE` is the first.
            encoded: image files to measure speed with.

        Raises:
            ParityError: the baseline answers differently from PyTorch, or no candidate is within the limit.
        """
        results = self._timed([self.evaluate(candidate) for candidate in candidates], encoded)
        for number, result in enumerate(results):
            fastest = max((_speed(each) for each in results if self._may_serve(each)), default=0.0)
            if result.record.graph and not self._may_serve(result) and _speed(result) > fastest:
                results[number] = self._timed([self._exclude_layers(result)], encoded)[0]
        return self.ranked(results)

    def evaluate(self, candidate: Candidate) -> CandidateResult:
        """Build a candidate's graph and evaluate it; the record of one that cannot be built or run has the reason.

        Raises:
            ParityError: the baseline answers differently from PyTorch, beyond the tolerance.
        """
        result = CandidateResult(candidate, candidate.record())
        if candidate.refused:
            return result
        try:
            if candidate.write is not None:
                result = result.updated(method=candidate.write(self.draft.path / candidate.graph))
            result = self._evaluated(result)
        except Exception as error:  # each tool has exceptions of its own
            if candidate == BASELINE:  # without it there is nothing to compare with
                raise
            result = result.updated(graph=None, why=_reason(error))
        _report(result)
        return result

    def ranked(self, results: Sequence[CandidateResult]) -> list[CandidateResult]:
        """Rank candidates by `lensmith.inference.selection`; see `run`."""
        by_name = {result.record.name: result for result in results}
        records = select([result.record for result in results], self.max_drop_pp, len(self.samples))
        if not records[0].chosen:
            rows = "; ".join(f"{record.name} {record.why}" for record in records)
            raise ParityError(
                f"An engine that loses at most {self.max_drop_pp:g} percentage points of accuracy against the run's"
                " own figure was expected.",
                f"None does: {rows}.",
                "No bundle was written; allow more with --max-accuracy-drop if you can accept that.",
            )
        usable = [record for record in records if may_serve(record, self.max_drop_pp) and record.images_per_second]
        for graph in {r.graph for r in records if r.graph} - {r.graph for r in usable}:
            for file in _files(self.draft.path / graph):
                file.unlink(missing_ok=True)
        return [
            replace(by_name[record.name], record=record).updated(graph=record.graph if record in usable else None)
            for record in records
        ]

    def _may_serve(self, result: CandidateResult) -> bool:
        return may_serve(result.record, self.max_drop_pp)

    def _evaluated(self, result: CandidateResult) -> CandidateResult:
        """The candidate's answers on all samples, compared with PyTorch's.

        Raises:
            ParityError: fp32 beyond the tolerance.
        """
        record = result.record
        path = self.draft.path / str(record.graph)
        classifier = Classifier(self.draft, open_graph(str(path), record.engine, record.precision, threads=1))
        evaluation = evaluate_samples(classifier, self.images, self.samples, self.part)
        row_of = {self.images.file(sample): row for row, sample in enumerate(self.samples)}
        rows = [row_of[file] for file in evaluation.files]
        paths, reference = [self.samples[row].path for row in rows], self.reference[rows]
        reported = None
        if self.figures is not None:
            reported = self.figures.correct_of(paths, reference.argmax(axis=1) == evaluation.truth)
        labels = self.draft.labels
        parity = compare(reference, evaluation.probabilities, paths, labels, evaluation.truth, reported)
        if record.precision == "fp32":
            parity.require(self.tolerance, self.min_agreement)
        return replace(result, evaluation=evaluation, parity=parity).updated(
            accuracy=evaluation.metrics.accuracy,
            drop=round(parity.drop, 4),
            agreement=parity.agreement,
            largest_difference=parity.largest_difference,
            bytes=sum(file.stat().st_size for file in _files(path)),
        )

    def _exclude_layers(self, result: CandidateResult) -> CandidateResult:
        """The candidate with ever more layers in fp32, until it is within the limit or nothing is left to try."""
        candidate, path = result.candidate, self.draft.path / result.candidate.graph
        try:
            while not self._may_serve(result) and (excluded := candidate.exclude_layers(path)):
                result = self._evaluated(result.updated(kept=excluded))
                _report(result)
        except Exception as error:  # as in `evaluate`
            return result.updated(graph=None, why=_reason(error))
        return result

    def _timed(self, results: Sequence[CandidateResult], encoded: Sequence[bytes]) -> list[CandidateResult]:
        how, runnable = self.draft.manifest.preprocessing, [each.record for each in results if each.record.graph]
        measured = {record.name: record for record in measure_all(self.draft.path, runnable, how, encoded)}
        return [replace(each, record=measured.get(each.record.name, each.record)) for each in results]


def _files(graph: Path) -> list[Path]:
    """A graph's files: OpenVINO's IR has its weights in a second one."""
    return [graph, graph.with_suffix(".bin")] if graph.suffix == ".xml" else [graph]


def _speed(result: CandidateResult) -> float:
    return result.record.images_per_second or 0.0


def _report(result: CandidateResult) -> None:
    """Print one line for a candidate, since the whole search takes minutes."""
    record = result.record
    message = record.why
    if record.accuracy is not None:
        excluded = f", with {len(record.kept)} of its layers in fp32" if record.kept else ""
        message = (
            f"accuracy {record.accuracy:.4f}, {-(record.drop or 0):+.2f} percentage points against the run{excluded}"
        )
    print(f"{record.name}: {message}", file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    if isinstance(error, ParityError):
        return error.arrived
    if isinstance(error, ModuleNotFoundError):
        return MissingPackageError.of(error).remedy
    message = " ".join(str(error).split())
    kind = "" if isinstance(error, RuntimeError | HelperError) else f"{type(error).__name__}: "  # which say nothing
    return f"{kind}{message[:200]}" if message else type(error).__name__
