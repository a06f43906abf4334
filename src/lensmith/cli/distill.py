"""`lensmith distill`."""

from typing import Any

from lensmith import api
from lensmith.cli.options import Output, command_for
from lensmith.cli.output import is_first_rank, number, print_table
from lensmith.cli.train import Recipe, Resume, leave, print_trained
from lensmith.config import TrainSettings


def distill(given: dict[str, Any], *, recipe: Recipe = None, resume: Resume = None) -> Output:
    """Train a small network on the answers of a trained one (knowledge distillation).

    TEACHER is the run folder of `lensmith train`. The student learns from the labels and from the teacher's softened
    predictions for the same augmented images; with `--feature-weight` also from the teacher's features. Images, parts,
    seed and resize mode are those of the teacher's run. Everything else is as in `lensmith train`.
    """
    try:
        distilled = api.distill(
            given.pop("teacher", None), given.pop("model", None), recipe=recipe, resume=resume, **given
        )
    finally:
        leave()
    if not is_first_rank():
        return
    yield distilled
    print_trained(distilled.trained)
    sides = {"teacher": distilled.teacher, "student": distilled.student}
    columns = ("", "backbone", "million parameters", "validation accuracy")
    rows = [(role, side.model, side.params_millions, number(side.accuracy)) for role, side in sides.items()]
    print_table("", columns, rows)


command = command_for(
    TrainSettings, distill, optional=("teacher",), positional=("teacher",), renamed={"model": "student"}, hidden=("cv",)
)
