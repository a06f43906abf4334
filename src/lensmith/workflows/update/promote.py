"""Promotion: the new model becomes the champion, begins a canary release, or replaces the bundle in use."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.config import UpdateSettings
from lensmith.core.files import replace_directory, sha256, staging_directory
from lensmith.errors import BundleError
from lensmith.workflows.pipeline.plan import PipelinePlan
from lensmith.workflows.pipeline.run import StageResult, run_plan


def promote(
    settings: UpdateSettings,
    plan: PipelinePlan,
    champion: Bundle,
    out: Path,
    on_progress: Callable[[StageResult], None],
) -> str:
    """Put the new model into service; says how.

    Raises:
        LensmithError: as the stages register and rollout; or the bundle was replaced by others in the meantime.
    """
    if settings.bundle is not None:
        return replace_bundle(settings.bundle.resolve(), plan.bundle, champion, out)
    ran = run_plan(plan, on_progress=on_progress)
    if ran.error is not None:
        raise ran.error
    stages = {stage.stage: stage for stage in ran.stages}
    if plan.file.rollout is not None:
        return stages["rollout"].message
    return _make_champion(plan, str(stages["register"].values["version"]))


def _make_champion(plan: PipelinePlan, version: str) -> str:
    """Point the alias champion to a registered version.

    Raises:
        RolloutError: a canary release is under way.
    """
    from lensmith.registry.aliases import point
    from lensmith.registry.models import resolve
    from lensmith.registry.references import CHAMPION, ModelReference
    from lensmith.rollout.lifecycle import require_not_under_way
    from lensmith.workflows.pipeline.champion import connect

    client = connect(plan.file, create=False)
    assert client is not None
    require_not_under_way(client, plan.file.model, CHAMPION)
    change = point(client, resolve(client, ModelReference(plan.file.model, version)), CHAMPION)
    before = f"; version {change.previous} is `previous`" if change.previous else ""
    return f"version {version} is the champion of {plan.file.model}{before}"


def replace_bundle(path: Path, successor: Path, champion: Bundle, out: Path) -> str:
    """Replace the bundle in use; the one before stays under `out`.

    Raises:
        BundleError: another bundle than the one that was compared is there by now.
    """
    content = sha256(path / MANIFEST)
    if content != sha256(champion.path / MANIFEST) or Bundle.load(path).manifest != champion.manifest:
        raise BundleError(
            f"The bundle {champion.manifest.version}, with which the new one was compared, was expected at {path}.",
            "Another one is there by now.",
            "Run the update again.",
        )
    if content == sha256(successor / MANIFEST):
        return f"{path} is this bundle already"
    replaced = out / "replaced" / f"{file_name(champion.manifest.version)}-{content[:8]}"
    if not replaced.exists():
        _copy_bundle(path, replaced)
    _copy_bundle(successor, path)
    return f"{path} is the new bundle; the one before is {replaced}"


def _copy_bundle(source: Path, target: Path) -> None:
    """Copy a bundle, verified, in the place of what is at `target`."""
    with staging_directory(target) as staging:
        shutil.copytree(source, staging, dirs_exist_ok=True)
        Bundle.load(staging)
        replace_directory(staging, target)


def file_name(name: str) -> str:
    """A name in which every character can be one of a pipeline, a folder and a model."""
    return re.sub(r"[^\w.-]", "-", name).lstrip(".-") or "model"
