"""What candidates are put to: made, judged through the serving path, compared with PyTorch, measured, chosen from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lensmith.bundle.format import Bundle, EngineRecord, Manifest
from lensmith.data.scan import ImageSet, Sample
from lensmith.errors import MissingPackageError, ParityError
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.run import judge
from lensmith.exporting.candidates import PLAIN, Candidate
from lensmith.exporting.parity import Parity, compare
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.benchmark import measure_all
from lensmith.inference.classifier import Classifier
from lensmith.inference.engine import open_graph
from lensmith.inference.selection import choose, may_serve


@dataclass(frozen=True)
class Trial:
    """What came of a candidate.

    Attributes:
        candidate: it.
        record: with what was measured; no graph where it may not serve.
        evaluation: its answers at temperature 1; None where it has none.
        parity: of them with PyTorch's.
    """

    candidate: Candidate
    record: EngineRecord
    evaluation: Evaluation | None = None
    parity: Parity | None = None


@dataclass(frozen=True)
class Contest:
    """What all candidates are put to.

    Attributes:
        folder: where their graphs go.
        manifest: of the bundle, as far as it is known.
        images: the set.
        samples: those of it that each candidate answers.
        part: what they are called.
        reference: float32 (N, C), PyTorch's probabilities of the samples that can be read.
        tolerance: largest difference of a probability that fp32 may show.
        min_agreement: smallest share of images with the same class in fp32.
        max_drop: accuracy that may be lost, in points of 100.
    """

    folder: Path
    manifest: Manifest
    images: ImageSet
    samples: Sequence[Sample]
    part: str
    reference: Tensor
    tolerance: float
    min_agreement: float
    max_drop: float

    def hold(self, candidates: Sequence[Candidate], with_images: Sequence[bytes]) -> list[Trial]:
        """Try all, and put them in order: the chosen one first. Graphs of those that may not serve are removed.

        One that is fast and loses too much is made anew with more layers in fp32, as long as it would be chosen.

        Args:
            candidates: `PLAIN` is the first.
            with_images: encoded, to measure speed with.

        Raises:
            ParityError: the plain engine answers differently from PyTorch, or none is within the limit.
        """
        trials = self._timed([self.attempt(candidate) for candidate in candidates], with_images)
        for number, trial in enumerate(trials):
            fastest = max((_speed(t) for t in trials if may_serve(t.record, self.max_drop)), default=0.0)
            if trial.record.graph and not may_serve(trial.record, self.max_drop) and _speed(trial) > fastest:
                trials[number] = self._timed([self._mend(trial)], with_images)[0]
        return self.ordered(trials)

    def attempt(self, candidate: Candidate) -> Trial:
        """Make a candidate's graph and judge it; what cannot be made or run says why.

        Raises:
            ParityError: the plain engine answers differently from PyTorch, beyond the tolerance.
        """
        record = candidate.record()
        if candidate.refused:
            return Trial(candidate, record)
        try:
            if candidate.maker is not None:
                method = candidate.maker.write(self.folder / candidate.graph)
                record = record.model_copy(update={"method": method})
            trial = self._judged(candidate, record)
        except Exception as error:  # each tool has exceptions of its own
            if isinstance(error, ParityError) and candidate == PLAIN:
                raise
            trial = Trial(candidate, record.model_copy(update={"graph": None, "why": _reason(error)}))
        _tell(trial)
        return trial

    def ordered(self, trials: Sequence[Trial]) -> list[Trial]:
        """By `lensmith.inference.selection`; see `hold`."""
        of = {trial.record.name: trial for trial in trials}
        records = choose([trial.record for trial in trials], self.max_drop)
        if not records[0].chosen:
            rows = "; ".join(f"{record.name} {record.why}" for record in records)
            raise ParityError(
                f"An engine that loses at most {self.max_drop:g} points of accuracy against PyTorch was expected.",
                f"None does: {rows}.",
                "No bundle was written; allow more with --max-accuracy-drop if you can accept that.",
            )
        usable = [record for record in records if may_serve(record, self.max_drop) and record.images_per_second]
        for graph in {r.graph for r in records if r.graph} - {r.graph for r in usable}:
            for file in _files(self.folder / graph):
                file.unlink(missing_ok=True)
        return [replace(of[r.name], record=r if r in usable else r.model_copy(update={"graph": None})) for r in records]

    def _judged(self, candidate: Candidate, record: EngineRecord) -> Trial:
        """Answer all images, and compare.

        Raises:
            ParityError: fp32 beyond the tolerance.
        """
        path = self.folder / str(record.graph)
        engine = open_graph(str(path), record.engine, record.precision, threads=1)
        classifier = Classifier(Bundle(self.folder, self.manifest), engine)
        evaluation = judge(classifier, self.images, self.samples, self.part)
        named = {self.images.file(sample): sample.path for sample in self.samples}
        paths = [named[file] for file in evaluation.files]
        parity = compare(self.reference, evaluation.probabilities, paths, self.manifest.labels, evaluation.truth)
        if record.precision == "fp32":
            parity.require(self.tolerance, self.min_agreement)
        found = {
            "accuracy": evaluation.metrics.accuracy,
            "drop": round(parity.drop, 4),
            "agreement": parity.agreement,
            "largest_difference": parity.largest_difference,
            "bytes": sum(file.stat().st_size for file in _files(path)),
        }
        return Trial(candidate, record.model_copy(update=found), evaluation, parity)

    def _mend(self, trial: Trial) -> Trial:
        """The candidate with ever more layers in fp32, until it is within the limit or nothing is left to try."""
        candidate = trial.candidate
        try:
            while candidate.maker is not None and not may_serve(trial.record, self.max_drop):
                kept = candidate.maker.spare(self.folder / candidate.graph)
                if not kept:
                    break
                trial = self._judged(candidate, trial.record.model_copy(update={"kept": kept}))
                _tell(trial)
        except Exception as error:  # see `attempt`
            return replace(trial, record=trial.record.model_copy(update={"graph": None, "why": _reason(error)}))
        return trial

    def _timed(self, trials: Sequence[Trial], images: Sequence[bytes]) -> list[Trial]:
        runnable = [trial.record for trial in trials if trial.record.graph]
        measured = {r.name: r for r in measure_all(self.folder, runnable, self.manifest.preprocessing, images)}
        return [replace(trial, record=measured.get(trial.record.name, trial.record)) for trial in trials]


def _files(graph: Path) -> list[Path]:
    """A graph's files: OpenVINO's IR has its weights in a second one."""
    return [graph, graph.with_suffix(".bin")] if graph.suffix == ".xml" else [graph]


def _speed(trial: Trial) -> float:
    return trial.record.images_per_second or 0.0


def _tell(trial: Trial) -> None:
    """One line a candidate, since the whole takes minutes."""
    record = trial.record
    if record.accuracy is None:
        said = record.why
    else:
        kept = f", with {len(record.kept)} of its layers in fp32" if record.kept else ""
        said = f"accuracy {record.accuracy:.4f}, {record.drop:+.2f} points lost{kept}"
    print(f"{record.name}: {said}", file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    if isinstance(error, ParityError):
        return error.arrived
    if isinstance(error, ModuleNotFoundError):
        return MissingPackageError.of(error).remedy
    said = " ".join(str(error).split())
    named = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "  # which says nothing
    return f"{named}{said[:200]}" if said else type(error).__name__
