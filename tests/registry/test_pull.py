"""A pulled bundle is the one that was pushed, or there is none."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import lensmith
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.core.files import sha256
from lensmith.core.machine import cache_dir
from lensmith.errors import OutputError, RegistryError
from lensmith.registry.models import CONTENT_TAG, Version, resolve
from lensmith.registry.pull import cached, locate, pull
from lensmith.registry.references import ModelReference


@pytest.fixture
def version(registry: Any, versions: Callable[..., Bundle]) -> Version:
    versions("a")
    return resolve(registry, ModelReference("flowers", "champion"))


def artifacts(version: Version) -> Path:
    """The folder of its files in the registry."""
    return Path(urlsplit(version.source).path)


def left() -> list[Path]:
    """What is in the cache beside what was known before."""
    folder = cache_dir() / "registry"
    return [path for path in folder.iterdir() if path.name != "known"] if folder.exists() else []


def test_a_bundle_is_cached_under_the_hash_of_its_content(registry: Any, version: Version) -> None:
    found = pull(registry, version)
    assert found == cache_dir() / "registry" / version.content
    assert sha256(found / MANIFEST) == version.content
    assert Bundle.load(found).manifest.version == "a"
    shutil.rmtree(artifacts(version))
    assert pull(registry, version) == found


@pytest.mark.parametrize("file", ["model.onnx", "golden.npz", MANIFEST])
@pytest.mark.parametrize("content", [b"another", None])
def test_a_file_that_was_changed_or_removed_in_the_registry_is_refused_and_nothing_is_left(
    file: str, content: bytes | None, registry: Any, version: Version
) -> None:
    (artifacts(version) / file).unlink()
    if content:
        (artifacts(version) / file).write_bytes(content)
    with pytest.raises(RegistryError, match="Another is there" if content else file):
        pull(registry, version)
    assert left() == []


def test_a_description_that_leads_out_of_the_cache_is_refused(registry: Any, version: Version) -> None:
    manifest = artifacts(version) / MANIFEST
    content = json.loads(manifest.read_text())
    content["files"]["../../escaped"] = "0" * 64
    manifest.write_text(json.dumps(content))
    with pytest.raises(RegistryError, match="leads out"):
        pull(registry, replace(version, tags={CONTENT_TAG: sha256(manifest)}))
    assert left() == []


@pytest.mark.parametrize("tag", ["../../../etc", "abc"])
def test_a_tag_that_is_no_hash_is_refused(tag: str, registry: Any, version: Version) -> None:
    with pytest.raises(RegistryError, match="no SHA-256"):
        pull(registry, replace(version, tags={CONTENT_TAG: tag}))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_reported_as_such(
    wrapped: bool, registry: Any, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    def download(source: str, dst_path: str, **_: Any) -> None:
        (Path(dst_path) / source.rpartition("/")[2]).write_bytes(b"half of i")
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if wrapped:
                raise MlflowException(f"The following failures occurred: {error!r}") from None
            raise

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    with pytest.raises(OSError, match="No space left") as caught:
        pull(registry, version)
    assert caught.value.errno == errno.ENOSPC
    assert left() == []


def test_a_cache_that_is_only_read_serves_what_it_holds(
    version: Version, monkeypatch: pytest.MonkeyPatch, registry: Any
) -> None:
    found = pull(registry, version)

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("lensmith.registry.pull.atomic_write", refuse)
    assert locate("flowers@champion") == found


def test_a_version_that_plain_mlflow_has_made_holds_no_bundle(registry: Any, version: Version) -> None:
    registry.create_model_version("flowers", "file:///srv/model")
    with pytest.raises(RegistryError, match="not pushed by lensmith"):
        lensmith.load("flowers@2")


def test_a_bundle_that_was_damaged_in_the_cache_is_fetched_again(registry: Any, version: Version) -> None:
    found = pull(registry, version)
    with (found / "model.onnx").open("r+b") as damaged:
        damaged.write(b"\0\0\0\0")
    assert pull(registry, version) == found
    assert Bundle.load(found).manifest.version == "a"


def test_several_may_pull_at_once(registry: Any, version: Version) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: Bundle.load(pull(registry, version)).path, range(16)))
    assert found == {cached(version.content)}
    assert left() == [cached(version.content)]


def test_an_abandoned_download_is_removed_and_one_under_way_is_not(registry: Any, version: Version) -> None:
    folder = cache_dir() / "registry"
    for name in (".pull-old", ".pull-new"):
        (folder / name).mkdir(parents=True)
    os.utime(folder / ".pull-old", (time.time() - 100_000,) * 2)
    pull(registry, version)
    assert not (folder / ".pull-old").exists()
    assert (folder / ".pull-new").exists()


def test_a_path_is_taken_as_it_is_even_if_it_looks_like_a_name(version: Version) -> None:
    assert locate("some/where") == Path("some/where")
    Path("flowers@champion").mkdir()
    assert locate("flowers@champion") == Path("flowers@champion")


def test_a_copy_can_be_had_as_folder_and_zip_at_a_free_place(version: Version, tmp_path: Path) -> None:
    folder = lensmith.Registry().pull("flowers@champion", tmp_path / "new" / "folder").path
    packed = lensmith.Registry().pull("flowers@1", tmp_path / "packed.zip").path
    assert Bundle.load(folder).manifest == Bundle.load(packed).manifest
    with pytest.raises(OutputError, match="Something is there"):
        lensmith.Registry().pull("flowers@champion", folder)
