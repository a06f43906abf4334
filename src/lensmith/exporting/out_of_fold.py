"""Out-of-fold evaluation of a bundle whose model learnt from all images after a cross-validation.

No image is left that the bundle's model did not learn from. So confidence, abstention and drift statistics are fitted
to the answers that the folds' models gave to images which they had not seen (as scikit-learn's CalibratedClassifierCV
does with `ensemble=False`), and report and model card show those answers, and say whose they are.
"""

from collections.abc import Iterator
from dataclasses import replace

from lensmith.evaluation.cross_validation import OUT_OF_FOLD, CrossValidation
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.metrics import measure
from lensmith.training.cross_validation import cross_validated, out_of_fold
from lensmith.training.run_dir.run import Run


def evaluation_of_folds(run: Run, own: Evaluation) -> tuple[Evaluation, CrossValidation]:
    """The answers of the folds' models in the place of the bundle's own, and their figures.

    Args:
        run: a run on all images of a cross-validation.
        own: the bundle's answers to images that it learnt from.

    Raises:
        RunError: the predictions of a fold are gone.
    """
    figures = cross_validated(run)
    answers, files = out_of_fold(run)
    found = replace(
        own,
        part=OUT_OF_FOLD,
        files=tuple(files),
        truth=answers.truth,
        probabilities=answers.probabilities,
        metrics=measure(answers.truth, answers.probabilities),
        unreadable=(),
        notes=(*_notes(figures, own), *own.notes),
    )
    return found, figures


def with_group_interval(evaluation: Evaluation, figures: CrossValidation) -> Evaluation:
    """The evaluation with the interval of its accuracy that counts groups, not images."""
    return replace(evaluation, metrics=replace(evaluation.metrics, accuracy_interval=figures.accuracy_interval))


def _notes(found: CrossValidation, own: Evaluation) -> Iterator[str]:
    """Sentences about whose figures these are."""
    folds = ", ".join(f"{100 * each.accuracy:.1f} %" for each in found.folds)
    yield (
        f"Cross-validation: the answers here are those of {len(found.folds)} models, each to the fold that it did not "
        f"learn from (accuracies {folds}). The model in the bundle learnt from all of these images, in "
        f"{found.epochs} epochs; with more images than any of the {len(found.folds)} it is probably no worse, but no "
        "image is left to show it."
    )
    if found.groups < found.images:
        yield (
            f"The images are in {found.groups:,} groups, which no fold parts. Images of a group succeed and fail "
            "together: intervals count groups."
        )
    yield (
        "Each fold also chose the epoch of its model, which flatters the figures a little. Intervals of all answers "
        "together are widened for what other training images would change."
    )
    yield (
        f"On {own.metrics.images:,} of the images that it learnt from, the bundle's engine has an accuracy of "
        f"{100 * own.metrics.accuracy:.1f} %, which says nothing about new ones."
    )
