"""The state of a pipeline, from its file or its folder, without running it; also as a Mermaid flowchart."""

import json
import textwrap
from contextlib import suppress
from pathlib import Path

from lensmith.core.files import atomic_write
from lensmith.errors import LensmithError, OutputError, RunError
from lensmith.workflows.pipeline.folder import STATE, PipelineFolder, read_json
from lensmith.workflows.pipeline.plan import PipelinePlan, make_plan
from lensmith.workflows.pipeline.run import PipelineResult, StageResult

STAGE_TITLES = {"check": "check data", "rollout": "roll out"}
COLOURS = {
    "done": "#2e7d32", "unchanged": "#5b8c5e", "failed": "#c62828", "stopped": "#b26a00", "running": "#1565c0",
    "to do": "#757575", "off": "#9e9e9e",
}  # fmt: skip
"""Border of a stage in the flowchart, by its state."""
MESSAGE_CHARACTERS = 120
MERMAID_ENTITIES = str.maketrans({char: f"#{ord(char)};" for char in '#"<>&`'})


def show_pipeline(path: Path, folder: Path | None = None, out: Path | None = None) -> PipelineResult:
    """The state of each stage after the latest run, and what a run would do now; see `lensmith.show_pipeline`.

    From a folder alone, changes since the latest run are unknown.

    Raises:
        SettingsError: mistakes in the file.
        RunError: a folder in which no pipeline has run.
        OutputError: an `out` with another ending.
    """
    if out is not None and out.suffix.lower() not in (".mmd", ".md"):
        raise OutputError(
            "A flowchart FILE.mmd or FILE.md was expected.",
            f"{out} arrived.",
            "Name one with such an ending; GitHub and most editors draw the Mermaid text in it.",
        )
    found = _from_folder(path) if path.is_dir() else _from_plan(make_plan(path, folder))
    if out is not None:
        chart = mermaid(found)
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, chart if out.suffix.lower() == ".mmd" else f"```mermaid\n{chart}```\n")
    return found


def mermaid(pipeline: PipelineResult) -> str:
    """A Mermaid flowchart of the stages with state, duration and message."""
    title = pipeline.name + (f", last run {pipeline.started[:16].replace('T', ' ')} UTC" if pipeline.started else "")
    lines = ["---", f"title: {json.dumps(title, ensure_ascii=False)}", "---", "flowchart LR"]
    for stage in pipeline.stages:
        state = stage.state
        if stage.seconds is not None and state != "off":
            state += f", {duration(stage.seconds)}"
        message = textwrap.shorten(stage.message, MESSAGE_CHARACTERS, placeholder=" …")
        words = [STAGE_TITLES.get(stage.stage, stage.stage), state, *([message] if message else [])]
        label = "<br/>".join(word.translate(MERMAID_ENTITIES) for word in words)
        lines.append(f'    {stage.stage}["{label}"]:::{_css_class(stage.state)}')
    lines.append(f"    {' --> '.join(stage.stage for stage in pipeline.stages)}")
    for state in dict.fromkeys(stage.state for stage in pipeline.stages):
        dashes = ",stroke-dasharray:5 4" if state in ("off", "to do") else ""
        lines.append(f"    classDef {_css_class(state)} stroke:{COLOURS[state]},stroke-width:2px{dashes}")
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """A duration as text: `0.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _css_class(state: str) -> str:
    return state.replace(" ", "_")


def _from_folder(path: Path) -> PipelineResult:
    state = read_json(path / STATE)
    if not state:
        raise RunError(
            f"The folder of a pipeline was expected at {path}.",
            f"It holds no {STATE}.",
            "Give the pipeline's file, or run it first: lensmith pipeline run FILE",
        )
    stages = _stored_results(PipelineFolder(path), state["stages"])
    return PipelineResult(state["name"], Path(state["file"]), path, stages, state["started"], state["seconds"])


def _from_plan(plan: PipelinePlan) -> PipelineResult:
    state = read_json(plan.folder.path / STATE) or {"stages": [], "started": "", "seconds": 0.0}
    latest = {result.stage: result for result in _stored_results(plan.folder, state["stages"])}
    record_ids: dict[str, str | None] = {}
    stages = []
    for name, stage in plan.stages.items():
        before = latest.get(name)
        before = before if before and before.key == stage.key else None
        record = plan.folder.read_record(name, stage.key)
        inputs = {need: record_ids[need] for need in stage.needs}
        if record and plan.has_output(name) and dict(record.inputs) == inputs:
            record_ids[name] = record.id
            state_now = before.state if before and before.state in ("done", "unchanged") else "unchanged"
            message = str(record.values.get("said", ""))
            stages.append(StageResult(name, state_now, stage.key, record.seconds, message, record.values))
        else:
            record_ids[name] = None
            unfinished = before is not None and before.state in ("failed", "stopped", "running")
            planned = StageResult(name, "to do" if stage.on else "off", stage.key)
            stages.append(before if before and unfinished else planned)
    _add_rollout_decision(plan, stages[-1])
    return PipelineResult(plan.file.name, plan.source, plan.folder.path, stages, state["started"], state["seconds"])


def _stored_results(folder: PipelineFolder, stored: list[dict[str, object]]) -> list[StageResult]:
    """Stage results from state.json; a stage that no process runs any more is stopped, not running."""
    results = [StageResult.from_dict(each) for each in stored]
    if not folder.is_locked():
        for result in results:
            if result.state == "running":
                result.state, result.message = "stopped", "its process has ended; the next run resumes it"
    return results


def _add_rollout_decision(plan: PipelinePlan, result: StageResult) -> None:
    """Add how the canary release has ended since the rollout stage began it, if the registry answers."""
    if result.values.get("state") != "under way" or plan.file.register_ is None:
        return
    from lensmith.rollout.status import status

    with suppress(LensmithError):
        found = status(plan.file.model, plan.file.tracking_uri)
        if found.rollout and found.rollout.id == result.values.get("rollout") and found.decision:
            outcome = found.decision.outcome
            challenger = f"{found.rollout.id}: version {found.rollout.challenger}"
            result.message = f"{challenger} was {outcome.replace('_', ' ')}: {found.decision.reason}"
            result.values = {**result.values, "state": outcome}
