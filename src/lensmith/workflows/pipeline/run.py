"""Run a pipeline's stages in order: unchanged stages are skipped, and each finished stage is recorded at once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lensmith.core.result import Result
from lensmith.core.version import __version__
from lensmith.errors import LensmithError, SettingsError
from lensmith.training.signals import RunInterruptedError, signal_of
from lensmith.workflows.pipeline.folder import STATE, StageRecord, read_json, write_json
from lensmith.workflows.pipeline.plan import STAGES, PipelinePlan, make_plan
from lensmith.workflows.pipeline.stages import STAGE_FUNCTIONS, is_fresh


@dataclass
class StageResult(Result):
    """State and results of one stage.

    Attributes:
        stage: name of the stage.
        state: done, unchanged, off, failed, stopped, running or to do.
        key: hash of the stage's settings and inputs.
        seconds: duration in seconds, of this run or of the earlier one whose result is reused.
        message: one line for people; for a failed stage the reason.
        values: results of the stage as plain values.
    """

    stage: str
    state: str
    key: str = ""
    seconds: float | None = None
    message: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, where the message is called `said`."""
        return {{"message": "said"}.get(name, name): value for name, value in super().as_dict().items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> StageResult:
        """The inverse of `as_dict`."""
        return cls(**{{"said": "message"}.get(name, name): value for name, value in stored.items()})


@dataclass
class PipelineResult:
    """Result of a pipeline's run.

    Attributes:
        source: path of the pipeline's file.
        started: start of the run, in UTC, as ISO 8601.
        error: the error that stopped the run; None if there was none.
    """

    name: str
    source: Path
    folder: Path
    stages: list[StageResult]
    started: str
    seconds: float = 0.0
    error: LensmithError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "file": str(self.source),
            "folder": str(self.folder),
            "lensmith": __version__,
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "stages": [result.as_dict() for result in self.stages],
            "error": str(self.error) if self.error else None,
        }


def run_pipeline(
    source: Path,
    out: Path | None = None,
    force: str | None = None,
    until: str | None = None,
    on_progress: Callable[[StageResult], None] = lambda result: None,
) -> PipelineResult:
    """Run a pipeline from its first stage that has changed; arguments are as those of `lensmith.pipeline`.

    Returns:
        Results of all stages; `error` is what stopped the run, already recorded in the folder.

    Raises:
        SettingsError: mistakes in the file, or no such stage.
        RunError: another process is running the pipeline.
    """
    for stage in (force, until):
        if stage is not None and stage not in STAGES:
            raise SettingsError(
                f"A stage was expected: {', '.join(STAGES)}.", f"{stage!r} arrived.", "Name one of them."
            )
    return run_plan(make_plan(source, out), force, until, on_progress)


def run_plan(
    plan: PipelinePlan,
    force: str | None = None,
    until: str | None = None,
    on_progress: Callable[[StageResult], None] = lambda result: None,
) -> PipelineResult:
    """`run_pipeline` for a plan that is made; `force` and `until` are stages.

    Raises:
        RunError: another process is running the pipeline.
    """
    with plan.folder.locked():
        return _Runner(plan, force, until, on_progress).run()


class _Runner:
    """One run of a plan; `record_ids` has the current record of each stage that is done or unchanged."""

    def __init__(
        self, plan: PipelinePlan, force: str | None, until: str | None, on_progress: Callable[[StageResult], None]
    ) -> None:
        self.plan, self.force, self.on_progress = plan, force, on_progress
        self.last = STAGES.index(until) if until else len(STAGES)
        self.record_ids: dict[str, str] = {}
        stages = [StageResult(name, "to do" if stage.on else "off", stage.key) for name, stage in plan.stages.items()]
        started = datetime.now(UTC).replace(microsecond=0).isoformat()
        self.result = PipelineResult(plan.file.name, plan.source, plan.folder.path, stages, started)

    def run(self) -> PipelineResult:
        """Run the stages until one fails."""
        plan, started = self.plan, time.perf_counter()
        for number, stage in enumerate(self.result.stages):
            if stage.state == "off" or number > self.last:
                continue
            try:
                self._run_stage(stage)
            except BaseException as error:
                stage.state = "stopped" if signal_of(error) or not isinstance(error, LensmithError) else "failed"
                self.result.error = _as_known(error, stage.stage)
                if self.result.error is None:
                    raise
                stage.message = self.result.error.arrived
                # The report that a failed stage has written, such as gate.json.
                stage.values = read_json(plan.stage_folder(stage.stage) / f"{stage.stage}.json")
            finally:
                self.result.seconds = time.perf_counter() - started
                self._write_state()
            self.on_progress(stage)
            if self.result.error:
                break
        return self.result

    def _run_stage(self, result: StageResult) -> None:
        plan, name = self.plan, result.stage
        stage = plan.stages[name]
        inputs = {need: self.record_ids[need] for need in stage.needs}
        record = plan.folder.read_record(name, stage.key)
        same_inputs = record is not None and dict(record.inputs) == inputs
        if record and same_inputs and name != self.force and is_fresh(plan, name, record):
            self._finish(result, "unchanged", record)
            return
        folder = plan.stage_folder(name)
        if name == self.force or (record and not same_inputs):
            shutil.rmtree(folder, ignore_errors=True)  # otherwise the stage resumes from what an earlier run left
        result.state = "running"
        self._write_state()
        self.on_progress(result)
        started = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            values = STAGE_FUNCTIONS[name](plan)
        finally:
            result.seconds = round(time.perf_counter() - started, 3)
        self._finish(result, "done", plan.folder.write_record(name, stage.key, inputs, values, result.seconds))
        plan.folder.prune(name, stage.key, plan.file.keep)

    def _finish(self, result: StageResult, state: str, record: StageRecord) -> None:
        self.record_ids[result.stage] = record.id
        result.state, result.seconds = state, record.seconds
        result.message, result.values = str(record.values.get("said", "")), record.values

    def _write_state(self) -> None:
        write_json(self.plan.folder.path / STATE, {**self.result.as_dict(), "pid": os.getpid()})


def _as_known(error: BaseException, stage: str) -> LensmithError | None:
    """The error for people of what stopped a stage; None for Ctrl-C, except in a training, and for faults."""
    if not isinstance(error, KeyboardInterrupt) and (number := signal_of(error)):
        arrived = error.arrived if isinstance(error, LensmithError) else f"{number.name} stopped it."
        return RunInterruptedError.by(
            number, f"The stage {stage} was to be finished.", arrived, "Run the pipeline again: it resumes from there."
        )
    return error if isinstance(error, LensmithError) else None
