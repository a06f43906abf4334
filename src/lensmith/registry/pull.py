"""Bundles out of the registry: fetched once, kept under the hash of their content, and verified."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmith.bundle import archive
from lensmith.bundle.format import MANIFEST, MAX_MANIFEST_BYTES, Bundle, require_free
from lensmith.core.files import atomic_write, replace_directory, sha256
from lensmith.core.machine import cache_dir
from lensmith.core.progress import track
from lensmith.errors import BundleError, FallbackWarning, RegistryError, RegistryUnreachableError
from lensmith.registry.client import client as connect
from lensmith.registry.client import problems, shown, uri
from lensmith.registry.models import CONTENT_TAG, Version, resolve
from lensmith.registry.references import ModelReference, parse

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ABANDONED_S = 24 * 3600
"""After so long a download that nobody has finished is removed."""

_verified: dict[Path, tuple[Any, ...]] = {}
"""Cached bundle → sizes and times of its files at the last hashing; the registry sidecar asks every few seconds."""


def locate(path: str | PathLike[str], tracking_uri: str | None = None) -> Path:
    """Where a bundle lies on this machine: a path as it is, `NAME@ALIAS` and `NAME@VERSION` pulled.

    Where the registry does not answer, what the name meant here the last time is taken, with a FallbackWarning.

    Raises:
        RegistryError: no such model, version or alias, or no bundle behind it.
        RegistryUnreachableError: the registry does not answer, and nothing is known here.
    """
    name = parse(path)
    if name is None:
        return Path(path)
    address = uri(tracking_uri)
    known = _known_file(address, name)
    try:
        client = connect(address, create=False)
        version = resolve(client, name)
        found = pull(client, version)
    except RegistryUnreachableError as error:
        last = _recall(known)
        if last is None:
            raise
        warnings.warn(f"{error.arrived} {name} is version {last[0]}, as before.", FallbackWarning, stacklevel=2)
        return last[1]
    last_known = {"name": str(name), "version": version.version, "content": version.content}
    with suppress(OSError):  # a cache that was filled beforehand, and is only read
        known.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(known, json.dumps(last_known))
    return found


def pull(client: MlflowClient, version: Version) -> Path:
    """The bundle of a version, in the cache of this machine; several processes may pull at once.

    Raises:
        RegistryError: the version holds no bundle, its files cannot be had from here, or they are not those that were
            pushed; then nothing of them is left.
    """
    if not version.content:
        raise RegistryError(
            f"A bundle was expected behind {version.name}@{version.version}.",
            f"It was not pushed by lensmith: it has no tag {CONTENT_TAG}.",
            "Push the bundle with: lensmith registry push BUNDLE",
        )
    if not _is_hash(version.content):
        raise _other_content(version, f"its tag {CONTENT_TAG} is no SHA-256")
    target = cached(version.content)
    if _is_whole(target, version.content):
        return target
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    staging = Path(tempfile.mkdtemp(prefix=".pull-", dir=folder))
    try:
        _download(client, version, staging)
        staging.chmod(0o755)
        if not _is_whole(target, version.content):  # else another process was quicker, and may be used already
            try:
                replace_directory(staging, target)
            except OSError:
                if not _is_whole(target, version.content):
                    raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _verified[target] = _signature(target)
    return target


@dataclass(frozen=True)
class Pulled:
    """A bundle that was pulled.

    Attributes:
        version: in the registry.
        path: folder or zip on this machine.
    """

    version: Version
    path: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the version's, and `path`."""
        return {**self.version.as_dict(), "path": str(self.path)}


def pull_to(client: MlflowClient, name: ModelReference, out: Path | None) -> Pulled:
    """Pull what a name means now.

    Args:
        client: of the registry.
        name: alias or version.
        out: where a copy goes, a finished folder, or zip by its ending; None: it stays in the cache alone.

    Raises:
        RegistryError: no such version, or as `pull`.
        OutputError: `out` is taken.
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
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        shutil.copytree(found, staging, dirs_exist_ok=True)
        replace_directory(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Pulled(version, out)


def cached(content: str) -> Path:
    """Where a bundle of that content lies, or would."""
    return cache_dir() / "registry" / content


def _download(client: MlflowClient, version: Version, staging: Path) -> None:
    """Fetch bundle.json, and if it is the one that was pushed, the files that it names."""
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
    """One file below an artifact URI, to the same place below `folder`.

    Raises:
        RegistryError: it cannot be had from this machine.
        RegistryUnreachableError: the server does not answer.
        OSError: there is no room for it here.
    """
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    address = str(client.tracking_uri)
    said = ""
    try:
        with problems(address):
            from mlflow.artifacts import download_artifacts

            download_artifacts(f"{source}/{name}", dst_path=str(target.parent), tracking_uri=address)
    except (OSError, RegistryError) as error:  # half a file may be there
        if full := _no_room(error, folder.parent):
            raise full from error
        if isinstance(error, RegistryUnreachableError):
            raise
        said = error.arrived if isinstance(error, RegistryError) else error.strerror or str(error)
    if said or not target.is_file():
        said = said or "it is missing"
        raise RegistryError(
            f"The file {name} was expected at {shown(source)}.",
            f"It cannot be had from this machine ({said.rstrip('.')}).",
            "Let the artifacts lie where all machines reach them: on an `mlflow server`, or in a shared folder.",
        )


def _no_room(error: BaseException, folder: Path) -> OSError | None:
    """That this machine's disk is full, where that is why; MLflow wraps it, or says it in words alone."""
    for number in (errno.ENOSPC, errno.EDQUOT):
        cause: BaseException | None = error
        while cause is not None:
            if getattr(cause, "errno", None) == number or os.strerror(number) in str(cause):
                return OSError(number, os.strerror(number), str(folder))
            cause = cause.__cause__ or cause.__context__
    return None


def _is_whole(target: Path, content: str) -> bool:
    """Whether the cache holds the bundle, unchanged."""
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
    files = sorted(file for file in target.rglob("*") if file.is_file())
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns, file.stat().st_ino) for file in files)


def _other_content(version: Version, problem: str) -> RegistryError:
    return RegistryError(
        f"The bundle that was pushed as {version.name}@{version.version} was expected at {shown(version.source)}.",
        f"Another is there: {problem}.",
        "Do not trust it: find out who changed it, and push the bundle again from where it was made.",
    )


def _is_hash(content: str) -> bool:
    return len(content) == 64 and set(content) <= set("0123456789abcdef")


def _known_file(address: str, name: ModelReference) -> Path:
    key = hashlib.sha256(f"{address} {name}".encode()).hexdigest()[:16]
    return cache_dir() / "registry" / "known" / f"{key}.json"


def _recall(known: Path) -> tuple[str, Path] | None:
    """Version and bundle that a name meant the last time; None where that is not here, or not whole."""
    try:
        last = json.loads(known.read_bytes())
        path = cached(str(last["content"]))
        return (str(last["version"]), path) if _is_whole(path, str(last["content"])) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_abandoned(folder: Path) -> None:
    for each in folder.glob(".pull-*"):
        with suppress(OSError):
            if time.time() - each.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(each, ignore_errors=True)
