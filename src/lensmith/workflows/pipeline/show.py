"""Where a pipeline stands, without running anything: from its file, or from its folder alone."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from lensmith.errors import LensmithError, OutputError, RunError
from lensmith.workflows.pipeline.flow import svg
from lensmith.workflows.pipeline.plan import STAGES, Plan, plan
from lensmith.workflows.pipeline.results import STATE, Results, write_whole
from lensmith.workflows.pipeline.run import Outcome, Ran


def show(path: Path, folder: Path | None = None, out: Path | None = None) -> Ran:
    """Say what became of each stage the last time, and what a run would do now.

    Args:
        path: the pipeline's file, or its folder; from a folder alone nothing is said of what has changed since.
        folder: of the pipeline, where its file is named and it is not runs/pipelines/NAME.
        out: picture to draw: FILE.svg or FILE.html.

    Raises:
        SettingsError: mistakes in the file.
        RunError: a folder in which no pipeline has run.
        OutputError: a picture of another kind.
    """
    if out is not None and out.suffix.lower() not in (".svg", ".html"):
        raise OutputError(
            "A picture FILE.svg or FILE.html was expected.", f"{out} arrived.", "Name one with such an ending."
        )
    found = _of_folder(path) if path.is_dir() else _of_plan(plan(path, folder))
    if out is not None:
        drawn = svg(found)
        page = f'<!doctype html>\n<meta charset="utf-8">\n<title>{found.name}</title>\n{drawn}'
        write_whole(out, drawn if out.suffix.lower() == ".svg" else page)
    return found


def _of_folder(folder: Path) -> Ran:
    results = Results(folder)
    state = results.state()
    if state is None:
        raise RunError(
            f"The folder of a pipeline was expected at {folder}.",
            f"It holds no {STATE}.",
            "Give the pipeline's file, or run it first: lensmith pipeline run FILE",
        )
    stages = [_outcome(each) for each in state["stages"]]
    if not results.is_held():
        _nobody_is_at(stages)
    return Ran(state["name"], Path(state["file"]), folder, stages, state["started"], state["seconds"])


def _of_plan(made: Plan) -> Ran:
    state = made.results.state() or {"stages": [], "started": "", "seconds": 0.0}
    last = {each["stage"]: _outcome(each) for each in state["stages"]}
    if not made.results.is_held():
        _nobody_is_at(list(last.values()))
    ids: dict[str, str | None] = {}
    stages = []
    for name in STAGES:
        stage, before = made.stages[name], last.get(name)
        outcome = Outcome(name, "to do" if stage.on else "off", stage.key)
        kept = made.results.read(name, stage.key)
        file = made.made(name)
        there = file is None or file.is_file()
        if kept and there and dict(kept.inputs) == {need: ids[need] for need in stage.needs}:
            ids[name] = kept.id
            same = before is not None and before.key == stage.key and before.state in ("done", "unchanged")
            state_now = before.state if before and same else "unchanged"
            said = str(kept.values.get("said", ""))
            outcome = Outcome(name, state_now, stage.key, kept.seconds, said, kept.values)
        else:
            ids[name] = None
            if before and before.key == stage.key and before.state in ("failed", "stopped", "running"):
                outcome = before
        stages.append(outcome)
    _rollout_now(made, stages[-1])
    return Ran(made.file.name, made.source, made.results.folder, stages, state["started"], state["seconds"])


def _rollout_now(made: Plan, outcome: Outcome) -> None:
    """What has become of a release since it was begun, if the registry answers."""
    if outcome.values.get("state") != "under way" or made.file.register_ is None:
        return
    from lensmith.rollout.status import status

    with suppress(LensmithError):
        found = status(made.file.model, made.file.register_.tracking_uri)
        if found.rollout and found.rollout.id == outcome.values.get("rollout") and found.decision:
            ended = found.decision.outcome.replace("_", " ")
            outcome.said = (
                f"{found.rollout.id}: version {found.rollout.challenger} was {ended}: {found.decision.reason}"
            )
            outcome.values = {**outcome.values, "state": found.decision.outcome}


def _nobody_is_at(stages: list[Outcome]) -> None:
    for outcome in stages:
        if outcome.state == "running":
            outcome.state, outcome.said = "stopped", "its process has ended; the next run goes on"


def _outcome(stored: dict[str, Any]) -> Outcome:
    return Outcome(**stored)
