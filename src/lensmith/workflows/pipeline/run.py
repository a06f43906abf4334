"""The stages one after the other: those that have not changed are left alone, and each that ends is written down."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lensmith.core.version import __version__
from lensmith.errors import LensmithError, SettingsError
from lensmith.training.signals import RunInterruptedError
from lensmith.workflows.pipeline.plan import STAGES, Plan
from lensmith.workflows.pipeline.plan import plan as look_over
from lensmith.workflows.pipeline.results import Result
from lensmith.workflows.pipeline.stages import DO, clear, stands


@dataclass
class Outcome:
    """What became of one stage.

    Attributes:
        stage: its name.
        state: done, unchanged, off, failed, stopped, running or to do.
        key: of its settings and inputs.
        seconds: that it took, this time or when it was done.
        said: its line for people; of a failed one what is wrong.
        values: what it came to.
    """

    stage: str
    state: str
    key: str = ""
    seconds: float | None = None
    said: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(vars(self))


@dataclass
class Ran:
    """What a run of a pipeline came to.

    Attributes:
        name: of the pipeline.
        source: its file.
        folder: its folder.
        stages: every stage, in order.
        started: when, in UTC.
        seconds: all together.
        error: what stopped it.
    """

    name: str
    source: Path
    folder: Path
    stages: list[Outcome]
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
            "stages": [outcome.as_dict() for outcome in self.stages],
            "error": str(self.error) if self.error else None,
        }


def run(
    source: Path,
    out: Path | None = None,
    force: str | None = None,
    until: str | None = None,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> Ran:
    """Run a pipeline from its first stage that has changed.

    Args:
        source: its file.
        out: its folder; runs/pipelines/NAME by default.
        force: a stage that is done anew, and with it all that are made of it.
        until: the last stage that runs.
        told: called when a stage begins, and when it is over.

    Returns:
        All stages; `error` is what stopped one, already written down.

    Raises:
        SettingsError: mistakes in the file, or no such stage.
        RunError: another process is running it.
    """
    _require_stage(force)
    _require_stage(until)
    plan = look_over(source, out)
    with plan.results.held():
        return _Runner(plan, force, until, told).run()


class _Runner:
    def __init__(self, plan: Plan, force: str | None, until: str | None, told: Callable[[Outcome], None]) -> None:
        self.plan, self.force, self.told = plan, force, told
        self.last = STAGES.index(until) if until else len(STAGES)
        self.ids: dict[str, str] = {}
        stages = [Outcome(name, "to do" if stage.on else "off", stage.key) for name, stage in plan.stages.items()]
        started = datetime.now(UTC).replace(microsecond=0).isoformat()
        self.ran = Ran(plan.file.name, plan.source, plan.results.folder, stages, started)

    def run(self) -> Ran:
        started = time.perf_counter()
        for number, outcome in enumerate(self.ran.stages):
            if outcome.state == "off" or number > self.last:
                continue
            try:
                self._stage(outcome)
            except LensmithError as error:
                outcome.state = "stopped" if isinstance(error, RunInterruptedError) else "failed"
                outcome.said = error.arrived
                outcome.values = self._left(outcome.stage)
                self.ran.error = error
            except BaseException:
                outcome.state = "stopped"
                raise
            finally:
                self._note(started)
            self.told(outcome)
            if self.ran.error:
                break
        return self.ran

    def _stage(self, outcome: Outcome) -> None:
        plan, name = self.plan, outcome.stage
        stage = plan.stages[name]
        inputs = {need: self.ids[need] for need in stage.needs}
        kept = plan.results.read(name, stage.key)
        if kept and name != self.force and dict(kept.inputs) == inputs and stands(plan, name, kept):
            self._over(outcome, "unchanged", kept)
            return
        if name == self.force or (kept and dict(kept.inputs) != inputs):  # else it goes on from where it was stopped
            clear(plan, name)
        outcome.state = "running"
        self._note()
        self.told(outcome)
        started = time.perf_counter()
        plan.place(name).mkdir(parents=True, exist_ok=True)
        try:
            values = DO[name](plan)
        finally:
            outcome.seconds = round(time.perf_counter() - started, 3)
        self._over(outcome, "done", plan.results.write(name, stage.key, inputs, values, outcome.seconds))
        plan.results.prune(name, stage.key, plan.file.keep)

    def _left(self, name: str) -> Mapping[str, Any]:
        """What a stage that failed has found out."""
        with suppress(OSError, ValueError):
            found = json.loads((self.plan.place(name) / f"{name}.json").read_bytes())
            return found if isinstance(found, dict) else {}
        return {}

    def _over(self, outcome: Outcome, state: str, result: Result) -> None:
        self.ids[outcome.stage] = result.id
        outcome.state, outcome.seconds = state, result.seconds
        outcome.said, outcome.values = str(result.values.get("said", "")), result.values

    def _note(self, started: float | None = None) -> None:
        if started is not None:
            self.ran.seconds = time.perf_counter() - started
        self.plan.results.note({**self.ran.as_dict(), "pid": os.getpid()})


def _require_stage(name: str | None) -> None:
    if name is not None and name not in STAGES:
        raise SettingsError(f"A stage was expected: {', '.join(STAGES)}.", f"{name!r} arrived.", "Name one of them.")
