"""A pipeline run by a scheduler that is there already: systemd, Kubernetes or GitHub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lensmith.config.pipeline_parser import parse_pipeline
from lensmith.errors import SettingsError
from lensmith.ops.deploy.cron import Cron
from lensmith.ops.deploy.plan import Files, Plan
from lensmith.ops.deploy.render import page

WORKSPACE = Path("/srv/lensmith")
"""Where the pipeline's file is looked for unless one is named."""

MEMORY_MB = 8192
"""Of a training, unless said otherwise."""

GITHUB_MINUTES = 5
"""Shortest interval between two runs that GitHub keeps."""


def files(plan: Plan) -> Files:
    """The files of `settings.target`, which run the pipeline when `settings.cron` says.

    Raises:
        SettingsError: a cron expression or a pipeline's file with mistakes, or a path that such a file cannot hold.
    """
    settings = plan.settings
    cron = Cron.parse(settings.cron)
    file = settings.bundle
    pipeline = parse_pipeline(file).require_valid() if file else None
    name = re.sub(r"[^a-z0-9-]+", "-", (pipeline.name if pipeline else "pipeline").lower()).strip("-") or "pipeline"
    said: dict[str, Any] = {
        "name": name,
        "folder": f"runs/pipelines/{pipeline.name if pipeline else '*'}",
        "cron": cron.text,
        "venv": settings.venv,
        "memory_mb": settings.memory_mb if "memory_mb" in settings.model_fields_set else MEMORY_MB,
        "cpus": f"{settings.cpus:g}",
    }
    made: Files
    if settings.target == "systemd":
        made = _systemd(file, cron, said)
    elif settings.target == "kubernetes":
        text = file.read_text(encoding="utf-8").rstrip().splitlines() if file else ["# name: …, data: …"]
        made = {"cronjob.yaml": page("schedule/cronjob.yaml", **said, lines=text)}
    else:
        made = _github(file, cron, said)
    return made


def _systemd(file: Path | None, cron: Cron, said: dict[str, Any]) -> Files:
    workspace = Path.cwd() if file else WORKSPACE
    path = file.resolve() if file else WORKSPACE / "pipeline.yaml"
    odd = [str(each) for each in (workspace, path) if re.search(r"[\s\"'%$\\]", str(each))]
    if odd:
        raise SettingsError(
            "Paths without blanks, quotes, % and $ were expected, as they go into a unit.",
            f"{', '.join(odd)} arrived.",
            "Use other names.",
        )
    said = {**said, "workspace": workspace, "file": path, "calendar": cron.on_calendar()}
    return {
        f"lensmith-{said['name']}.{kind}": page(f"schedule/lensmith-pipeline.{kind}", **said)
        for kind in ("service", "timer")
    }


def _github(file: Path | None, cron: Cron, said: dict[str, Any]) -> Files:
    if cron.shortest_minutes < GITHUB_MINUTES:
        raise SettingsError(
            f"At least {GITHUB_MINUTES} minutes between two runs were expected, which is what GitHub keeps.",
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
            "Call it in the root of the repository, as: lensmith deploy schedule pipeline.yaml --target github",
        )
    return {f"lensmith-{said['name']}.yml": page("schedule/workflow.yml", **said, file=path.as_posix())}
