"""Push a bundle to the registry: its files first, then the version that names them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256 as digest
from os import PathLike
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lensmith.bundle.format import MANIFEST, Bundle, Manifest
from lensmith.core.files import sha256
from lensmith.core.progress import track
from lensmith.core.version import __version__
from lensmith.errors import RegistryError
from lensmith.registry.aliases import point, require_alias
from lensmith.registry.client import experiment
from lensmith.registry.mlflow_errors import translate_errors
from lensmith.registry.models import CONTENT_TAG, RUN_TAG, Version, artifact_path, names, resolve, versions
from lensmith.registry.pull import fetch
from lensmith.registry.references import ModelReference

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "lensmith"
"""Experiment for bundles whose training is not tracked."""


@dataclass(frozen=True)
class Pushed:
    """Result of a push.

    Attributes:
        version: the version in the registry, with its aliases.
        new: False where the same bundle was a version already.
        uploaded: False where the files were in MLflow already, as the tracked training had left them.
    """

    version: Version
    new: bool
    uploaded: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the fields of the version, `new` and `uploaded`."""
        return {**self.version.as_dict(), "new": self.new, "uploaded": self.uploaded}


def push(client: MlflowClient, path: str | PathLike[str], name: str | None = None, alias: str | None = None) -> Pushed:
    """Make a bundle, a folder or zip, a version of a registered model; the same content becomes only one version.

    The bundle's own name is the model's by default.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        RegistryError: name or alias is invalid, or MLflow refuses the push; then there is no new version.
    """
    bundle = Bundle.load(path)
    named = name if name is not None else bundle.manifest.name
    _require_name(named)
    if alias is not None:
        require_alias(alias)
    content = sha256(bundle.path / MANIFEST)
    known = names(client)
    same = [each for each in versions(client, named) if each.content == content] if named in known else []
    uploaded = False
    if same:
        version = same[-1]
    else:
        found = _found(client, content)
        uploaded = found is None
        run, source = found or _upload(client, bundle, content)
        version = _register(client, named, source, run, _tags(bundle.manifest, content))
    if alias is not None:
        point(client, version, alias)
    return Pushed(resolve(client, ModelReference(named, version.version)), not same, uploaded)


def _require_name(name: str) -> None:
    if re.fullmatch(r"\w[\w. -]{0,99}", name):
        return
    proposed = re.sub(r"[^\w.-]+", "-", name).strip("-. ")[:100] or "model"
    raise RegistryError(
        "A model's name of at most 100 letters, digits, spaces, dots, dashes and underscores was expected.",
        f"{name[:120]!r} arrived.",
        f"Name it with --name, such as: --name {proposed}",
    )


def _tags(manifest: Manifest, content: str) -> dict[str, str]:
    accuracy = manifest.metrics.get("accuracy")
    return {
        CONTENT_TAG: content,
        "lensmith.bundle": manifest.name,
        "lensmith.bundle_version": manifest.version,
        "lensmith.created": manifest.created.isoformat(),
        "lensmith.labels": digest(json.dumps(manifest.labels).encode()).hexdigest()[:16],  # of names and order
        "lensmith.classes": str(len(manifest.labels)),
        "lensmith.version": __version__,
        **(
            {"lensmith.accuracy": f"{accuracy:.6g}", "lensmith.accuracy_part": str(manifest.metrics.get("part", ""))}
            if isinstance(accuracy, (int, float))
            else {}
        ),
    }


def _found(client: MlflowClient, content: str) -> tuple[str, str] | None:
    """Run and source of a bundle that a tracked training, or an earlier push, has uploaded completely."""
    key = f"{RUN_TAG}{content[:16]}"
    with translate_errors(str(client.tracking_uri)):
        groups = [each.experiment_id for each in client.search_experiments()]
        runs = client.search_runs(groups, f"tags.`{key}` = '{artifact_path(content)}'")
    for run in runs:
        source = f"{run.info.artifact_uri}/{artifact_path(content)}"
        with TemporaryDirectory() as folder, suppress(RegistryError):
            fetch(client, source, MANIFEST, Path(folder))
            if sha256(Path(folder) / MANIFEST) == content:
                return str(run.info.run_id), source
    return None


def _upload(client: MlflowClient, bundle: Bundle, content: str) -> tuple[str, str]:
    """Upload the files to a run of their own, which is removed if that fails; returns run and source."""
    group = experiment(client, EXPERIMENT)
    with translate_errors(str(client.tracking_uri)):
        run = client.create_run(group, run_name=f"{bundle.manifest.name} {bundle.manifest.version}")
        with _undone_by(lambda: client.delete_run(run.info.run_id)):
            # bundle.json comes last: where it is, the upload is complete.
            for name in track((*sorted(bundle.manifest.files), MANIFEST), "uploading"):
                folder = PurePosixPath(artifact_path(content)) / PurePosixPath(name).parent
                client.log_artifact(run.info.run_id, str(bundle.path / name), str(folder))
            client.set_tag(run.info.run_id, f"{RUN_TAG}{content[:16]}", artifact_path(content))
            client.set_terminated(run.info.run_id)
    return str(run.info.run_id), f"{run.info.artifact_uri}/{artifact_path(content)}"


def _register(client: MlflowClient, name: str, source: str, run: str, tags: dict[str, str]) -> Version:
    from mlflow.exceptions import MlflowException

    with translate_errors(str(client.tracking_uri)):
        made = False
        with suppress(MlflowException):  # it exists, or creating the version fails below
            client.create_registered_model(name)
            made = True
        with _undone_by(lambda: made and client.delete_registered_model(name)):
            version = client.create_model_version(name, source, run_id=run, tags=tags)
    return resolve(client, ModelReference(name, str(version.version)))


@contextmanager
def _undone_by(undo: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(Exception):
            undo()
        raise
