"""`lensmith update`: a model trained again with new pictures, and a page that compares it with the one before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lensmith import api
from lensmith.cli.options import Output, command_for
from lensmith.cli.output import can_ask, is_confirmed, print_line
from lensmith.config import UpdateSettings

if TYPE_CHECKING:
    from lensmith.workflows.pipeline.run import StageResult
    from lensmith.workflows.update.run import UpdateResult


def update(given: dict[str, Any]) -> Output:
    """Train a model again with new pictures, show what changes, ask, and promote it.

    The pictures are those of DATA, old and new; the settings are those of the model in use. Old pictures keep their
    part, so the models are compared on held-out pictures that neither has learnt from. Features that are cached are not
    computed again. Exits with 3 if the gate refuses the new model.

    Example: `lensmith update photos --model flowers`
    """
    asked: list[UpdateResult] = []

    def confirm(result: UpdateResult) -> bool:
        """Show the comparison and ask, where there is a terminal."""
        if not can_ask():
            return False
        asked.append(result)
        print("\n".join(_lines(result)), file=sys.stderr, flush=True)
        return is_confirmed("Promote the new model?")

    result = api.update(**given, confirm=confirm, on_progress=_show_stage)
    yield result
    for line in () if asked and sys.stdout.isatty() else _lines(result):
        print_line(line)
    if result.problem is not None:
        raise result.problem
    if result.promoted:
        print_line(("Promoted: ", "bold green"), result.promoted)
    else:
        print_line("Not promoted. Look at the page, then run the same command with --yes: nothing is trained again.")


def _lines(result: UpdateResult) -> Iterator[str]:
    difference, computed = result.difference, result.computed_features
    features = "" if computed is None else f"; features computed for this model: {computed:,}"
    yield f"New pictures: {result.new_images:,}{features}"
    yield from result.labels.lines
    yield (
        f"Accuracy on {result.compared:,} held-out pictures: {result.champion_accuracy.value:.1%} before,"
        f" {result.accuracy.value:.1%} now, {difference.value:+.1f} points ({difference.low:+.1f} to"
        f" {difference.high:+.1f})"
    )
    yield f"Became right: {len(result.became_right):,}   became wrong: {len(result.became_wrong):,}"
    yield from result.notes
    yield f"Page    {result.page}"
    yield f"Bundle  {result.bundle}"


def _show_stage(stage: StageResult) -> None:
    """A line on standard error when a stage begins and when it has ended."""
    took = f", {stage.seconds:.1f} s" if stage.state == "done" and stage.seconds is not None else ""
    message = f": {stage.message}" if stage.message else ""
    print(f"{stage.stage} {stage.state}{took}{message}", file=sys.stderr, flush=True)


command = command_for(UpdateSettings, update)
