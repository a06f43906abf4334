"""`lensmith train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lensmith import api
from lensmith.cli.options import Json, command_for
from lensmith.cli.output import print_json, say
from lensmith.config import TrainSettings


def train(
    given: dict[str, Any],
    *,
    recipe: Annotated[Path | None, typer.Option(help="YAML file of settings; flags go over it.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run folder; it has its settings.")] = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a pretrained backbone on a folder of labelled images.

    First the new head learns on the frozen backbone, then everything. The best epoch on the validation part is exported
    as a bundle. Ctrl-C saves; `--resume RUN` goes on.
    """
    trained = api.train(given.pop("data", None), recipe=recipe, resume=resume, **given)
    if as_json:
        print_json(trained.as_dict())
        return
    fitted, parity = trained.fitted, trained.exported.parity
    accuracy = fitted.metrics["val_accuracy"]
    judged = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
    say((f"\n{trained.bundle}", "bold"))
    say(f"  best epoch {fitted.best_epoch} of {fitted.epochs}{judged}; curves in {fitted.run.curves}")
    say(f"  the graph agrees with PyTorch on {parity.agreement:.2%} of {parity.images:,} images")
    say(f"  {trained.seconds:,.0f} s, {fitted.images_per_second:,.0f} training images a second")
    say(f"\nNext: lensmith serve {trained.bundle}")


command = command_for(TrainSettings, train, optional=("data",))
