"""What a snapshot holds, whatever becomes of the bundle."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.errors import BundleError
from lensmith.serving.server import bundle_snapshot
from lensmith.serving.server.bundle_snapshot import BundleSnapshot


def replace(path: Path, other: Bundle) -> None:
    shutil.rmtree(path)
    shutil.copytree(other.path, path)


def overwrite_manifest(path: Path, other: Bundle) -> None:
    (path / MANIFEST).write_bytes((other.path / MANIFEST).read_bytes())


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
@pytest.mark.parametrize("change", [replace, overwrite_manifest, lambda path, _: shutil.rmtree(path)])
def test_a_snapshot_is_the_bundle_as_it_was(
    links: bool,
    change: Callable[[Path, Bundle], None],
    remake: Callable[..., Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    if not links:
        monkeypatch.setattr(bundle_snapshot.os, "link", refuse)
    live, other = remake("live", version="1"), remake("other", version="2")
    snapshot = BundleSnapshot.take(live.path, tmp_path / "snapshot")
    change(live.path, other)
    assert Bundle.load(snapshot.path()).manifest.version == "1"


def test_a_snapshot_that_was_cleaned_away_is_the_bundle_where_that_is_the_same(
    remake: Callable[..., Bundle], tmp_path: Path
) -> None:
    live, other = remake("live", version="1"), remake("other", version="2")
    snapshot = BundleSnapshot.take(live.path, tmp_path / "snapshot")
    shutil.rmtree(tmp_path / "snapshot")
    assert snapshot.path() == live.path
    replace(live.path, other)
    with pytest.raises(BundleError, match="live"):
        snapshot.path()


def test_a_zip_is_kept_too(remake: Callable[..., Bundle], tmp_path: Path) -> None:
    packed = remake("live", version="1").pack(tmp_path / "live.zip")
    snapshot = BundleSnapshot.take(packed, tmp_path / "snapshot")
    packed.unlink()
    assert Bundle.load(snapshot.path()).manifest.version == "1"


def test_no_bundle_is_reported_by_whoever_loads_it(tmp_path: Path) -> None:
    assert BundleSnapshot.take(tmp_path / "nowhere", tmp_path / "snapshot").path() == tmp_path / "nowhere"
