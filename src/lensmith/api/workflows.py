"""What joins several rooms: pipelines, the demonstration, the check of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lensmith import config
from lensmith.api.arguments import StrPath, default, documented, given
from lensmith.core.machine import share_cores

if TYPE_CHECKING:
    from lensmith.ops.doctor import Diagnosis
    from lensmith.workflows.demo import DemoResult
    from lensmith.workflows.pipeline.run import PipelineResult, StageResult
    from lensmith.workflows.update.run import UpdateResult


def doctor() -> Diagnosis:
    """Check this machine: versions, devices, cores, engines, limits, and a remedy for each problem."""
    from lensmith.ops.doctor import examine

    return examine()


def pipeline(
    file: StrPath = "pipeline.yaml",
    *,
    out: StrPath | None = None,
    force: str | None = None,
    until: str | None = None,
    on_progress: Callable[[StageResult], None] | None = None,
) -> PipelineResult:
    """Run a pipeline from its first stage that has changed; an error that stops it, such as its gate, is in the result.

    Args:
        file: Path of the pipeline's YAML file.
        out: The pipeline's folder; runs/pipelines/NAME by default.
        force: Name of a stage to run again, with all stages that depend on it.
        until: Name of the last stage to run.
        on_progress: Callback that gets a stage's result when the stage begins and when it ends.
    """
    share_cores()
    from lensmith.workflows.pipeline.run import run_pipeline

    callback = on_progress or (lambda result: None)
    return run_pipeline(Path(file), None if out is None else Path(out), force, until, callback)


@documented(config.UpdateSettings)
def update(
    data: StrPath, *, confirm: Callable[[UpdateResult], bool] | None = None,
    on_progress: Callable[[StageResult], None] | None = None,
    model: str | None = None, bundle: StrPath | None = None, out: StrPath | None = None, exclude: StrPath | None = None,
    relabel: StrPath | None = None, canary: bool | None = None, tracking_uri: str | None = None,
    yes: bool = default(False),
) -> UpdateResult:  # fmt: skip
    """Train a model again with new pictures, compare both on held-out pictures, and promote it if that is confirmed.

    Args:
        confirm: Function that gets the comparison and says whether to promote; without it `yes` decides.
        on_progress: Callback that gets a stage's result when the stage begins and when it ends.
    """
    settings = config.UpdateSettings.resolve(given(locals(), "confirm", "on_progress"))
    share_cores()
    from lensmith.workflows.update.run import update as run

    return run(settings, confirm or (lambda result: False), on_progress or (lambda stage: None))


def show_pipeline(
    file: StrPath = "pipeline.yaml", *, folder: StrPath | None = None, out: StrPath | None = None
) -> PipelineResult:
    """State of a pipeline's stages, and what a run would do now; nothing is run.

    Args:
        file: Path of the pipeline's YAML file, or its folder.
        folder: The pipeline's folder, where it is not runs/pipelines/NAME.
        out: File for a Mermaid flowchart: FILE.mmd, or FILE.md with the chart in a code block.
    """
    from lensmith.workflows.pipeline.show import show_pipeline

    return show_pipeline(Path(file), None if folder is None else Path(folder), None if out is None else Path(out))


@documented(config.DemoSettings)
def demo(
    *,
    out: StrPath = default("runs/demo"), train_images: int = default(6000), test_images: int = default(2000),
    seed: int = default(0), port: int = default(0), keep_serving: bool = default(False),
) -> DemoResult:  # fmt: skip
    """Fetch, train, export, evaluate and serve real images."""
    settings = config.DemoSettings.resolve(given(locals()))
    share_cores()
    from lensmith.workflows.demo import demo as run

    return run(settings)
