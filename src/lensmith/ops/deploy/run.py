"""From settings to a folder of files: all of them, or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.config import DeploySettings
from lensmith.core.files import replace_directory, sha256
from lensmith.core.version import __version__
from lensmith.errors import OutputError
from lensmith.ops.deploy.compose import files as compose
from lensmith.ops.deploy.docker import files as docker
from lensmith.ops.deploy.nginx import files as nginx
from lensmith.ops.deploy.plan import Files, Plan
from lensmith.ops.deploy.prometheus import files as prometheus
from lensmith.ops.deploy.schedule import files as schedule
from lensmith.ops.deploy.systemd import files as systemd

KINDS: dict[str, Callable[[Plan], Files]] = {
    "nginx": nginx,
    "systemd": systemd,
    "docker": docker,
    "compose": compose,
    "prometheus": prometheus,
    "schedule": schedule,
}
"""Kind → what makes its files."""

INDEX = "deploy.json"
"""What an earlier call has written, with hashes; a folder without it is not ours to replace."""

SECRETS = "secrets/"
"""Files below it are made once: they are kept by --overwrite, and readable by their owner alone until shared."""


@dataclass(frozen=True)
class Deployed:
    """What was written.

    Attributes:
        kind: of `KINDS`.
        folder: where it lies.
        files: names in it, sorted.
    """

    kind: str
    folder: Path
    files: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"kind": self.kind, "folder": str(self.folder), "files": list(self.files)}


def deploy(settings: DeploySettings) -> Deployed:
    """Write the files of `settings.kind` into a folder of their own.

    With `overwrite`, files of an earlier call are replaced; secrets and files that it did not write stay.

    Raises:
        SettingsError: an address or path that cannot be written into such a file.
        BundleError: the bundle is damaged or missing.
        OutputError: the folder is taken, or a file to be copied is missing.
    """
    folder = settings.out or Path("deploy") / settings.kind
    _require_free(folder, settings.overwrite)
    files = KINDS[settings.kind](Plan.of(settings))
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if folder.exists():
            _take_over(folder, staging)
        for name, content in files.items():
            _put(staging / name, content, secret=name.startswith(SECRETS))
        written = tuple(sorted(name for name in _below(staging, files)))
        index = {
            "lensmith": __version__,
            "kind": settings.kind,
            "files": {name: sha256(staging / name) for name in written if not name.startswith(SECRETS)},
        }
        (staging / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        staging.chmod(0o755)
        replace_directory(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Deployed(settings.kind, folder, written)


def _require_free(folder: Path, overwrite: bool) -> None:
    ours = overwrite and (folder / INDEX).is_file()
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(
            f"A free path was expected for the files in {folder}.",
            "Something is there." if not overwrite else f"What is there holds no {INDEX}, so it is something else.",
            "Name another with --out, or replace files of an earlier call with --overwrite.",
        )


def _take_over(older: Path, staging: Path) -> None:
    """What an earlier call did not write: secrets, and whatever was put there since."""
    index = older / INDEX
    replaced = {INDEX, *(json.loads(index.read_text(encoding="utf-8"))["files"] if index.is_file() else ())}

    def ours(folder: str, names: list[str]) -> set[str]:
        at = Path(folder).relative_to(older)
        return {name for name in names if (at / name).as_posix() in replaced}

    shutil.copytree(older, staging, symlinks=True, dirs_exist_ok=True, ignore=ours)


def _put(path: Path, content: str | Path, secret: bool) -> None:
    if secret and path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif content.is_dir():
        shutil.copytree(content, path, dirs_exist_ok=True)
    elif content.is_file():
        shutil.copyfile(content, path)
    else:
        raise OutputError(
            f"A file was expected at {content}.", "Nothing is there.", "Correct the path, or leave the flag out."
        )
    if secret:
        # Containers read it as users of their own, through a mount of this one file; here the folder keeps it private.
        path.parent.chmod(0o700)
        path.chmod(0o644)


def _below(staging: Path, files: Files) -> set[str]:
    found: set[str] = set()
    for name in files:
        path = staging / name
        inside = (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else (path,)
        found.update(file.relative_to(staging).as_posix() for file in inside)
    return found
