"""A distilled student's teacher, evaluated on the same images with the engine that serves it, for one table."""

import sys
from collections.abc import Sequence
from typing import Any

from lensmith.bundle.format import Bundle
from lensmith.data.scan import Sample
from lensmith.errors import LensmithError
from lensmith.evaluation.run import evaluate_samples
from lensmith.inference.benchmark import measure_all
from lensmith.inference.classifier import Classifier
from lensmith.inference.engine import open_record
from lensmith.training.run_dir.run import Run


def teacher_of(run: Run, samples: Sequence[Sample], part: str) -> dict[str, Any]:
    """The teacher's name, version, backbone, and its selected engine's record as measured now.

    Args:
        run: the student's run.
        samples: samples of the run that candidates are evaluated on.
        part: name of the part that the samples are from.

    Returns:
        Plain values for JSON; empty without a teacher, or where the teacher has no bundle that runs here.
    """
    if run.settings.teacher is None:
        return {}
    try:
        taught = Run.open(run.settings.teacher)
        bundle = Bundle.load(taught.bundle)
        record = bundle.records()[0]
        evaluation = evaluate_samples(
            Classifier(bundle, open_record(bundle, record, threads=1)), run.images, samples, part
        )
        manifest = bundle.manifest
        (record,) = measure_all(bundle.path, [record], manifest.preprocessing, bundle.golden().images)
    except LensmithError as error:  # a table without it is better than none
        print(f"the teacher is not in the table: {error.arrived}", file=sys.stderr, flush=True)
        return {}
    record = record.model_copy(update={"accuracy": evaluation.metrics.accuracy, "drop": None, "why": "the teacher"})
    return {
        "name": manifest.name,
        "version": manifest.version,
        "model": taught.settings.model,
        "engine": record.model_dump(mode="json", exclude={"chosen", "pareto"}),
    }
