"""Pull bundles from the registry: downloaded once, cached under the hash of their content, and verified."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmith.bundle import archive
from lensmith.bundle.format import MANIFEST, MAX_MANIFEST_BYTES, Bundle, require_free
from lensmith.core.files import atomic_write, replace_directory, sha256, staging_directory, stat_stamp
from lensmith.core.machine import cache_dir
from lensmith.core.progress import track
from lensmith.errors import BundleError, FallbackWarning, RegistryError, RegistryUnreachableError
from lensmith.registry.client import client as connect
from lensmith.registry.client import require_present, uri
from lensmith.registry.mlflow_errors import causes, shown, translate_errors
from lensmith.registry.models import CONTENT_TAG, Version, resolve
from lensmith.registry.references import ModelReference, parse

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ABANDONED_S = 24 * 3600
"""Age in seconds at which an unfinished download is removed."""

_verified: dict[Path, tuple[Any, ...]] = {}
"""Path of a cached bundle → stamps of its files at the last hashing; the registry sidecar pulls every few seconds."""


def locate(path: str | PathLike[str], tracking_uri: str | None = None) -> Path:
    """The path of a bundle on this machine: `path` itself, or what `NAME@ALIAS` or `NAME@VERSION` names, pulled.

    Where the registry does not answer, the version of the last pull is used, with a FallbackWarning.

    Raises:
        RegistryError: there is no such model, version or alias, or no bundle behind it.
        RegistryUnreachableError: the registry does not answer, and the name was never pulled here.
    """
    reference = parse(path)
    if reference is None:
        return Path(path)
    address = uri(tracking_uri)
    last_pull = cache_dir() / "registry" / "known" / f"{reference.cache_key(address)}.json"
    try:
        require_present(address)
        client = connect(address, create=False)
        version = resolve(client, reference)
        found = pull(client, version)
    except RegistryUnreachableError as error:
        last = _read_last_pull(last_pull)
        if last is None:
            raise
        warnings.warn(f"{error.arrived} {reference} is version {last[0]}, as before.", FallbackWarning, stacklevel=2)
        return last[1]
    with suppress(OSError):  # a cache that was filled beforehand, and is read-only
        last_pull.parent.mkdir(parents=True, exist_ok=True)
        pulled = {"name": str(reference), "version": version.version, "content": version.content}
        atomic_write(last_pull, json.dumps(pulled))
    return found


def pull(client: MlflowClient, version: Version) -> Path:
    """Download a version's bundle into the cache of this machine; several processes may pull at once.

    Raises:
        RegistryError: the version has no bundle, its files cannot be reached, or they are not those that were pushed;
            then the cache is unchanged.
    """
    if not version.content:
        raise RegistryError(
            f"A bundle was expected behind {version.name}@{version.version}.",
            f"It was not pushed by lensmith: it has no tag {CONTENT_TAG}.",
            "Push the bundle with: lensmith registry push BUNDLE",
        )
    if not re.fullmatch(r"[0-9a-f]{64}", version.content):
        raise _other_content(version, f"its tag {CONTENT_TAG} is no SHA-256")
    target = cached(version.content)
    if _is_verified(target, version.content):
        return target
    _remove_abandoned(target.parent)
    with staging_directory(target) as staging:
        _download(client, version, staging)
        if not _is_verified(target, version.content):  # else another process was faster, and its copy may be in use
            try:
                replace_directory(staging, target)
            except OSError:
                if not _is_verified(target, version.content):
                    raise
    _verified[target] = _signature(target)
    return target


@dataclass(frozen=True)
class Pulled:
    """Result of a pull.

    Attributes:
        version: the version in the registry.
        path: folder or zip on this machine.
    """

    version: Version
    path: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the fields of the version, and `path`."""
        return {**self.version.as_dict(), "path": str(self.path)}


def pull_to(client: MlflowClient, name: ModelReference, out: Path | None) -> Pulled:
    """Pull a bundle, and copy it to a folder outside the cache, or to a zip by its suffix; None makes no copy.

    Raises:
        RegistryError: there is no such version, or `pull` fails.
        OutputError: `out` exists.
    """
    if out is not None:
        require_free(out, replace=False)
    version = resolve(client, name)
    found = pull(client, version)
    if out is None:
        return Pulled(version, found)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".zip":
        return Pulled(version, Bundle.load(found).pack(out))
    with staging_directory(out) as staging:
        shutil.copytree(found, staging, dirs_exist_ok=True)
        replace_directory(staging, out)
    return Pulled(version, out)


def cached(content: str) -> Path:
    """The path of a bundle in the cache, by its content's hash."""
    return cache_dir() / "registry" / content


def _download(client: MlflowClient, version: Version, staging: Path) -> None:
    """Download bundle.json and, if it is the one that was pushed, the files that it names."""
    fetch(client, version.source, MANIFEST, staging)
    manifest = staging / MANIFEST
    if manifest.stat().st_size > MAX_MANIFEST_BYTES or sha256(manifest) != version.content:
        raise _other_content(version, f"its {MANIFEST} has changed since it was pushed")
    try:
        files = sorted(json.loads(manifest.read_bytes())["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise _other_content(version, f"its {MANIFEST} names no files") from error
    for name in files:
        if archive.unsafe(name):
            raise _other_content(version, f"it names {name[:80]!r}, which {archive.unsafe(name)}")
    for name in track(files, f"pulling {version.name}@{version.version}"):
        fetch(client, version.source, name, staging)
    try:
        Bundle.load(staging)
    except BundleError as error:
        raise _other_content(version, error.arrived.rstrip(".")) from error


def fetch(client: MlflowClient, source: str, name: str, folder: Path) -> None:
    """Download one file below an artifact URI to the same path below `folder`.

    Raises:
        RegistryError: the file cannot be reached from this machine.
        RegistryUnreachableError: the server does not answer.
        OSError: the disk is full.
    """
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    address = str(client.tracking_uri)
    problem = "it is missing"
    try:
        with translate_errors(address):
            from mlflow.artifacts import download_artifacts

            download_artifacts(f"{source}/{name}", dst_path=str(target.parent), tracking_uri=address)
        if target.is_file():
            return
    except (OSError, RegistryError) as error:  # a part of the file may be there
        if full := _no_room(error, folder.parent):
            raise full from error
        if isinstance(error, RegistryUnreachableError):
            raise
        problem = error.arrived if isinstance(error, RegistryError) else error.strerror or str(error)
    raise RegistryError(
        f"The file {name} was expected at {shown(source)}.",
        f"It cannot be reached from this machine ({problem.rstrip('.')}).",
        "Store artifacts where all machines reach them: on an `mlflow server`, or in a shared folder.",
    )


def _no_room(error: BaseException, folder: Path) -> OSError | None:
    """The error of a full disk, if that is the cause; MLflow wraps it, or quotes only its text."""
    for number in (errno.ENOSPC, errno.EDQUOT):
        text = os.strerror(number)
        if any(getattr(cause, "errno", None) == number or text in str(cause) for cause in causes(error)):
            return OSError(number, text, str(folder))
    return None


def _is_verified(target: Path, content: str) -> bool:
    """Whether the cache has the bundle, unchanged."""
    if not target.is_dir():
        return False
    with suppress(OSError):
        signature = _signature(target)
        if _verified.get(target) == signature:
            return True
        if sha256(target / MANIFEST) == content:
            with suppress(BundleError):
                Bundle.load(target)
                _verified[target] = signature
                return True
    return False


def _signature(target: Path) -> tuple[Any, ...]:
    return tuple((str(file), stat_stamp(file)) for file in sorted(target.rglob("*")) if file.is_file())


def _other_content(version: Version, problem: str) -> RegistryError:
    return RegistryError(
        f"The bundle that was pushed as {version.name}@{version.version} was expected at {shown(version.source)}.",
        f"Another is there: {problem}.",
        "Do not trust it: find out who changed it, and push the bundle again from where it was made.",
    )


def _read_last_pull(file: Path) -> tuple[str, Path] | None:
    """Version and path of the last pull of a name; None where there was none, or its copy is damaged."""
    try:
        last = json.loads(file.read_bytes())
        path = cached(str(last["content"]))
        return (str(last["version"]), path) if _is_verified(path, str(last["content"])) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_abandoned(folder: Path) -> None:
    for each in folder.glob(".*-*"):
        with suppress(OSError):
            if time.time() - each.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(each, ignore_errors=True)
