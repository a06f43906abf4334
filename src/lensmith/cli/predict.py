"""`lensmith predict`."""

import sys
from typing import Any

import typer

from lensmith import api
from lensmith.cli.options import Json, command_for
from lensmith.cli.output import print_json
from lensmith.config import PredictSettings


def predict(given: dict[str, Any], *, as_json: Json = False) -> None:
    """Classify many images into a table: CSV, JSON Lines or Parquet.

    Images are files, folders with all below them, or `-` for one path a line on standard input. An image that cannot
    be read is a row with its reason. With `--json` and no `--out` the rows are in the object, under `predictions`.
    """
    made = api.predict(**given, stream=None if as_json else sys.stdout)
    if as_json:
        print_json(made)
    counts = f"{made.images - made.unreadable:,} classified, {made.unreadable:,} unreadable"
    if made.abstained:
        counts += f", {made.abstained:,} abstained"
    typer.echo(f"{counts}, {made.images_per_second:,.0f} images a second", err=True)


command = command_for(PredictSettings, predict)
