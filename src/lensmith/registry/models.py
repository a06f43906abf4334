"""Registered models, their versions and aliases."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.errors import RegistryError
from lensmith.registry.mlflow_errors import code, shown, translate_errors
from lensmith.registry.references import CHAMPION, ModelReference

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONTENT_TAG = "lensmith.content"
"""Tag of a version: SHA-256 of its bundle.json, which holds the hashes of all other files."""

RUN_TAG = "lensmith.bundle."
"""Prefix of a run's tag, followed by 16 digits of the content: the path of the bundle among the run's artifacts."""

_LISTED = 10


@dataclass(frozen=True)
class Version(Result):
    """A version of a registered model.

    Attributes:
        name: the registered model's name.
        version: number of the version.
        source: artifact URI of its files.
        run: id of its run in MLflow; empty without one.
        created: time of the push, in UTC.
        aliases: aliases that name it, sorted.
        tags: the version's tags.
    """

    computed = ("content",)

    name: str
    version: str
    source: str
    run: str
    created: datetime
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    @property
    def content(self) -> str:
        """SHA-256 of its bundle.json; empty without a bundle."""
        return self.tags.get(CONTENT_TAG, "")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without a password in the URI."""
        return {**super().as_dict(), "source": shown(self.source)}


def artifact_path(content: str) -> str:
    """The path of a bundle among a run's artifacts: under its hash, so that no other bundle replaces it."""
    return f"bundle/{content[:16]}"


def resolve(client: MlflowClient, name: ModelReference) -> Version:
    """Find the version that `NAME@ALIAS` or `NAME@VERSION` names now.

    Raises:
        RegistryError: there is no such model, version or alias; the message lists those that exist.
    """
    with _missing_explained(client, name):
        if name.is_version:
            return _version(client.get_model_version(name.name, name.which))
        return _version(client.get_model_version_by_alias(name.name, name.which))


def champion_of(client: MlflowClient, name: str) -> Version | None:
    """The version that the alias champion names; None without that alias.

    Raises:
        RegistryError: there is no such model.
    """
    return next((each for each in versions(client, name) if CHAMPION in each.aliases), None)


def versions(client: MlflowClient, name: str) -> list[Version]:
    """All versions of a model, the newest first.

    Raises:
        RegistryError: there is no such model.
    """
    named: dict[str, list[str]] = {}
    for alias, version in aliases(client, name).items():
        named.setdefault(version, []).append(alias)
    with translate_errors(str(client.tracking_uri)):
        quote = '"' if "'" in name else "'"
        found = _all(client.search_model_versions, f"name={quote}{name}{quote}")
    # MLflow's search leaves aliases out.
    made = [_version(each, named.get(str(each.version), [])) for each in found]
    return sorted(made, key=lambda version: int(version.version), reverse=True)


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """All aliases of a model: alias → version.

    Raises:
        RegistryError: there is no such model.
    """
    with _missing_explained(client, ModelReference(name, "")):
        found = client.get_registered_model(name).aliases
    return {alias: str(version) for alias, version in sorted(found.items())}


@dataclass(frozen=True)
class RegisteredModel(Result):
    """A registered model with all its versions.

    Attributes:
        name: the registered model's name.
        versions: all versions, the newest first.
    """

    computed = ("aliases",)

    name: str
    versions: tuple[Version, ...]

    @property
    def aliases(self) -> dict[str, str]:
        """All aliases: alias → version."""
        return dict(sorted((alias, each.version) for each in self.versions for alias in each.aliases))


def model(client: MlflowClient, name: str) -> RegisteredModel:
    """A model with all its versions.

    Raises:
        RegistryError: there is no such model.
    """
    return RegisteredModel(name, tuple(versions(client, name)))


def names(client: MlflowClient) -> list[str]:
    """All registered models, sorted."""
    with translate_errors(str(client.tracking_uri)):
        return sorted(model.name for model in _all(client.search_registered_models, None))


def set_alias(client: MlflowClient, version: Version, alias: str) -> None:
    """Point an alias to a version."""
    with translate_errors(str(client.tracking_uri)):
        client.set_registered_model_alias(version.name, alias, version.version)


def _all(search: Any, wanted: str | None) -> list[Any]:
    """The results of a search, from all its pages."""
    page = search(filter_string=wanted)
    found = list(page)
    while page.token:
        page = search(filter_string=wanted, page_token=page.token)
        found += page
    return found


def _version(found: Any, aliases: list[str] | None = None) -> Version:
    named = found.aliases if aliases is None else aliases
    created = datetime.fromtimestamp(found.creation_timestamp // 1000, UTC)
    source, run = found.source or "", found.run_id or ""
    return Version(found.name, str(found.version), source, run, created, tuple(sorted(named)), dict(found.tags))


@contextmanager
def _missing_explained(client: MlflowClient, name: ModelReference) -> Iterator[None]:
    """Translate MLflow's errors, and list what exists where the name does not."""
    with translate_errors(str(client.tracking_uri)):
        try:
            yield
        except Exception as error:
            # MLflow calls a missing alias an invalid parameter.
            if code(error) not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                raise
            raise missing_error(client, name) from error


def missing_error(client: MlflowClient, name: ModelReference) -> RegistryError:
    """The error about a missing model, version or alias, with those that exist."""
    known = names(client)
    if name.name not in known:
        near = difflib.get_close_matches(name.name, known, n=3, cutoff=0.5)
        others = f"Near it are {', '.join(near)}" if near else f"It has {listed(known, _LISTED)}"
        return RegistryError(
            f"A model named {name.name} was expected in the registry at {shown(client.tracking_uri)}.",
            f"It has none of that name. {others if known else 'It holds no model yet'}.",
            "Name one of those, or push a bundle with: lensmith registry push BUNDLE --name NAME",
        )
    if name.is_version:
        kind, there = "version", [each.version for each in versions(client, name.name)]
    else:
        named = aliases(client, name.name)
        kind, there = "alias", [f"{alias} (version {version})" for alias, version in named.items()]
    return RegistryError(
        f"The {kind} {name.which} of {name.name} was expected in the registry at {shown(client.tracking_uri)}.",
        f"There is none. It has {listed(there, _LISTED) or f'no {kind}'}.",
        f"See what there is with: lensmith registry show {name.name}",
    )
