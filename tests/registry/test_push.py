"""A push makes a version, whole, or none."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lensmith
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.core.files import sha256
from lensmith.errors import BundleError, RegistryError, RolloutError
from lensmith.registry.models import aliases, names, versions
from lensmith.registry.push import push
from lensmith.rollout.ledger import Ledger
from lensmith.rollout.state import CanaryRelease

Remake = Callable[..., Bundle]


DIGEST = "1dced05872f70632"
"""Of the labels and their order; older versions in a registry have it."""


def test_a_version_says_what_was_pushed(registry: Any, remake: Remake) -> None:
    bundle = remake("bundle", name="flowers", version="run-3", metrics={"accuracy": 0.91234567})
    pushed = push(registry, bundle.path)
    tags = pushed.version.tags
    assert pushed.version.name == "flowers"
    assert pushed.version.content == sha256(bundle.path / MANIFEST)
    assert tags["lensmith.bundle_version"] == "run-3"
    assert tags["lensmith.accuracy"] == "0.912346"
    assert tags["lensmith.labels"] == DIGEST
    assert pushed.version.aliases == ()


def test_the_same_content_is_pushed_once_to_a_model_and_uploaded_once_at_all(
    registry: Any, remake: Remake, tmp_path: Path
) -> None:
    bundle = remake("bundle", name="flowers")
    packed = bundle.pack(tmp_path / "bundle.zip")
    assert push(registry, bundle.path).uploaded
    again = push(registry, packed, alias="champion")
    assert (again.version.version, again.new) == ("1", False)
    assert again.version.aliases == ("champion",)
    elsewhere = push(registry, bundle.path, name="other")
    assert (elsewhere.version.version, elsewhere.new, elsewhere.uploaded) == ("1", True, False)
    assert Bundle.load(lensmith.Registry().pull("other@1").path).manifest == bundle.manifest


def test_files_that_are_no_longer_in_mlflow_are_uploaded_again(registry: Any, remake: Remake, workspace: Path) -> None:
    bundle = remake("bundle", name="flowers")
    push(registry, bundle.path)
    shutil.rmtree(workspace / "runs" / "mlartifacts")
    assert push(registry, bundle.path, name="other").uploaded


@pytest.mark.parametrize("failing", ["log_artifact", "set_tag", "create_model_version"])
def test_a_push_that_dies_half_way_leaves_neither_version_nor_model(
    failing: str, registry: Any, remake: Remake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(registry, failing, die)
        with pytest.raises(KeyboardInterrupt):
            push(registry, remake("bundle", name="flowers").path)
    assert names(registry) == []
    assert push(registry, remake("other", name="flowers").path).version.version == "1"


def test_what_is_no_bundle_is_refused_before_anything_is_made(registry: Any, remake: Remake, tmp_path: Path) -> None:
    bundle = remake("bundle", name="flowers")
    (bundle.path / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="has changed since"):
        push(registry, bundle.path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="holds no"):
        push(registry, tmp_path / "empty")
    assert names(registry) == []
    assert registry.get_experiment_by_name("lensmith") is None


NO_NAMES = [{"name": name} for name in ("a/b", "a:b", "", "a@b", " a", "x" * 101)]
NO_ALIASES = [{"alias": alias} for alias in ("3", "v3", "latest", "Latest", "a b", "a.b", "", "-a")]


@pytest.mark.parametrize("given", NO_NAMES + NO_ALIASES)
def test_a_name_and_an_alias_that_cannot_be_used_are_refused_before_mlflow_is_asked(
    given: dict[str, str], colour_bundle: Bundle
) -> None:
    with pytest.raises(RegistryError, match=rf"{next(iter(given))}\b"):
        push(None, colour_bundle.path, **given)  # type: ignore[arg-type]


def test_no_champion_is_set_while_a_canary_release_is_under_way(flowers: Any, remake: Remake) -> None:
    ledger = Ledger.open(flowers, "flowers")
    ledger.begin(CanaryRelease(id="", name="flowers", champion="1", challenger="2"))
    with pytest.raises(RolloutError):
        lensmith.Registry().push(remake("bundle", name="flowers").path, alias="champion")
    with pytest.raises(RolloutError):
        lensmith.Registry().set_alias("flowers@2", "champion")
    with pytest.raises(RolloutError):
        lensmith.Registry().rollback("flowers")
    with pytest.raises(RolloutError):
        lensmith.Registry().remove_alias("flowers", "champion")
    assert aliases(flowers, "flowers") == {"champion": "1"}
    assert push(flowers, remake("fourth", name="flowers").path, alias="candidate").version.version == "4"


def test_versions_of_all_pages_are_seen(flowers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowers, "search_model_versions", partial(flowers.search_model_versions, max_results=1))
    assert [version.version for version in versions(flowers, "flowers")] == ["3", "2", "1"]
