"""`lensmith deploy`: write a folder of configuration files, all of them or none."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lensmith.config import DeploySettings
from lensmith.core.files import replace_directory, sha256, staging_directory
from lensmith.core.output_names import require_folder_name
from lensmith.core.result import Result
from lensmith.core.version import __version__
from lensmith.errors import OutputError
from lensmith.ops.deploy.compose import compose_files
from lensmith.ops.deploy.deployment import Deployment, Files
from lensmith.ops.deploy.docker import docker_files
from lensmith.ops.deploy.nginx import nginx_files
from lensmith.ops.deploy.prometheus import prometheus_files
from lensmith.ops.deploy.schedule import schedule_files
from lensmith.ops.deploy.systemd import systemd_files

KINDS: dict[str, Callable[[Deployment], Files]] = {
    "nginx": nginx_files,
    "systemd": systemd_files,
    "docker": docker_files,
    "compose": compose_files,
    "prometheus": prometheus_files,
    "schedule": schedule_files,
}
"""Kind of deployment → function that makes its files."""

INDEX = "deploy.json"
"""List of the files of an earlier call, with hashes; a folder without it is never replaced."""

SECRETS = "secrets/"
"""Files below it are written once: --overwrite does not replace them, and only their owner can open the folder."""


@dataclass(frozen=True)
class DeployResult(Result):
    """Result of `lensmith deploy`: the files that were written, as sorted paths in the folder."""

    kind: str
    folder: Path
    files: tuple[str, ...]


def deploy(settings: DeploySettings) -> DeployResult:
    """Write the files of `settings.kind` to a folder of their own.

    With `overwrite`, files of an earlier call are replaced; secrets and other files in the folder stay.

    Raises:
        SettingsError: an address or path that such files cannot hold.
        BundleError: a damaged or missing bundle.
        OutputError: a folder with other content, or a missing file to copy.
    """
    folder = settings.out or Path("deploy") / settings.kind
    require_folder_name(folder, "the files, with --out")
    _require_free(folder, settings.overwrite)
    files = KINDS[settings.kind](Deployment.of(settings))
    with staging_directory(folder) as staging:
        if folder.exists():
            _copy_unowned(folder, staging)
        for name, content in files.items():
            _write(staging / name, content, secret=name.startswith(SECRETS))
        written = tuple(sorted(_paths_in(staging, files)))
        index = {
            "lensmith": __version__,
            "kind": settings.kind,
            "files": {name: sha256(staging / name) for name in written if not name.startswith(SECRETS)},
        }
        (staging / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        staging.chmod(0o755)  # copying the older folder's content copied its permissions, too
        replace_directory(staging, folder)
    return DeployResult(settings.kind, folder, written)


def _require_free(folder: Path, overwrite: bool) -> None:
    ours = overwrite and (folder / INDEX).is_file()
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(
            f"A free path was expected for the files in {folder}.",
            "Something is there." if not overwrite else f"It holds no {INDEX}, so it is something else.",
            "Name another with --out, or replace files of an earlier call with --overwrite.",
        )


def _copy_unowned(older: Path, staging: Path) -> None:
    """Copy what is not replaced: secrets, and files that an earlier call did not write."""
    index = older / INDEX
    replaced = {INDEX, *(json.loads(index.read_text(encoding="utf-8"))["files"] if index.is_file() else ())}

    def owned(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(older)
        return {name for name in names if (inside / name).as_posix() in replaced}

    shutil.copytree(older, staging, symlinks=True, dirs_exist_ok=True, ignore=owned)


def _write(path: Path, content: str | Path, secret: bool) -> None:
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
        # Containers mount this one file and read it as other users; on this machine the folder protects it.
        path.parent.chmod(0o700)
        path.chmod(0o644)


def _paths_in(staging: Path, files: Files) -> set[str]:
    found: set[str] = set()
    for name in files:
        path = staging / name
        inside = (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else (path,)
        found.update(file.relative_to(staging).as_posix() for file in inside)
    return found
