"""`lensmith recipe`: print the settings of a training, and check a recipe file."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.options import Output, group
from lensmith.cli.output import print_line, print_table

OF_ONE_RUN = {"data", "out"}
"""Settings of one run, which a recipe leaves out."""


def show(
    which: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset, or a recipe file.")] = "balanced",
) -> Output:
    """Print all settings of a preset or recipe file.

    The output is a recipe that `lensmith train --recipe` reads back.
    The values of the environment and of lensmith.yaml are included, as in training.

    Example: `lensmith recipe show best > mine.yaml`
    """
    settings = api.recipe(which).model_dump(mode="json", exclude=OF_ONE_RUN)
    yield {"recipe": which, "settings": settings}
    print(f"# lensmith train DIR --recipe FILE\n{yaml.safe_dump(settings, sort_keys=False)}", end="")


def validate(file: Annotated[Path, typer.Argument(metavar="FILE", help="Recipe file (YAML).")]) -> Output:
    """Check a recipe file before training.

    Shows which layers each phase trains. All mistakes are reported together: unknown settings, values, contradictions,
    an unknown backbone, missing files.
    """
    found = api.validate(file)
    yield found
    settings, stages = found.settings, found.stages
    print_line(
        (f"{file}", "bold"), ": ", ("usable", "green"), f"; {settings.model}, {settings.step_images} images a step"
    )
    rows = []
    for phase in found.phases:
        first, last = phase.first_epoch + 1, phase.end_epoch
        learns = {0: "head", None: f"head and all {stages} stages"}.get(
            phase.trainable, f"head and the last {phase.trainable} of {stages} stages"
        )
        size = phase.image_size or settings.model_size or "the backbone's own"
        rows.append((phase.name, str(first) if first == last else f"{first} to {last}", learns, size))
    print_table("", ("phase", "epochs", "trains", "pixels"), rows)


command = group(VERBS["recipe"], show=show, validate=validate)
