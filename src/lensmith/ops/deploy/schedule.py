"""Scheduled pipeline runs: files for a systemd timer, a Kubernetes CronJob or a GitHub workflow."""

import re
from pathlib import Path
from typing import Any

from lensmith.config.pipeline_parser import parse_pipeline
from lensmith.errors import SettingsError
from lensmith.ops.deploy.cron import CronSchedule
from lensmith.ops.deploy.deployment import Deployment, Files
from lensmith.ops.deploy.render import render

WORKSPACE = Path("/srv/lensmith")
"""Folder of the pipeline's file on the machine that runs it, if the settings name no file."""

MEMORY_MB = 8192
"""Default memory limit of a pipeline in MiB, since it trains."""

GITHUB_MINUTES = 5
"""Shortest interval in minutes between two runs that GitHub supports."""


def schedule_files(deployment: Deployment) -> Files:
    """The files for `settings.scheduler` that run the pipeline at the times of `settings.cron`.

    Raises:
        SettingsError: a cron expression or a pipeline's file with mistakes, or a path that such a file cannot hold.
    """
    settings = deployment.settings
    cron = CronSchedule.parse(settings.cron)
    file = settings.bundle
    pipeline = parse_pipeline(file).require_valid() if file else None
    name = re.sub(r"[^a-z0-9-]+", "-", (pipeline.name if pipeline else "pipeline").lower()).strip("-") or "pipeline"
    values: dict[str, Any] = {
        "name": name,
        "folder": f"runs/pipelines/{pipeline.name if pipeline else '*'}",
        "cron": cron.text,
        "venv": settings.venv,
        "memory_mb": settings.memory_mb if "memory_mb" in settings.model_fields_set else MEMORY_MB,
        "cpus": f"{settings.cpus:g}",
    }
    made: Files
    if settings.scheduler == "systemd":
        made = _systemd(file, cron, values)
    elif settings.scheduler == "kubernetes":
        text = file.read_text(encoding="utf-8").rstrip().splitlines() if file else ["# name: …, data: …"]
        made = {"cronjob.yaml": render("schedule/cronjob.yaml", **values, lines=text)}
    else:
        made = _github(file, cron, values)
    return made


def _systemd(file: Path | None, cron: CronSchedule, values: dict[str, Any]) -> Files:
    workspace = Path.cwd() if file else WORKSPACE
    path = file.resolve() if file else WORKSPACE / "pipeline.yaml"
    odd = [str(each) for each in (workspace, path) if re.search(r"[\s\"'%$\\]", str(each))]
    if odd:
        raise SettingsError(
            "Paths without blanks, quotes, % and $ were expected, as they go into a unit.",
            f"{', '.join(odd)} arrived.",
            "Use other names.",
        )
    values = {**values, "workspace": workspace, "file": path, "calendar": cron.on_calendar()}
    return {
        f"lensmith-{values['name']}.{kind}": render(f"schedule/lensmith-pipeline.{kind}", **values)
        for kind in ("service", "timer")
    }


def _github(file: Path | None, cron: CronSchedule, values: dict[str, Any]) -> Files:
    if cron.shortest_minutes < GITHUB_MINUTES:
        raise SettingsError(
            f"At least {GITHUB_MINUTES} minutes between two runs were expected, the shortest interval of GitHub.",
            f"{cron.text!r} has {cron.shortest_minutes}.",
            "Run it less often.",
        )
    path = file or Path("pipeline.yaml")
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    if path.is_absolute() or ".." in path.parts or not re.fullmatch(r"[\w./-]+", path.as_posix()):
        raise SettingsError(
            "A pipeline's file in the repository was expected, named from its root and without blanks.",
            f"{str(path)!r} arrived.",
            "Run this in the root of the repository: lensmith deploy schedule pipeline.yaml --scheduler github",
        )
    return {f"lensmith-{values['name']}.yml": render("schedule/workflow.yml", **values, file=path.as_posix())}
