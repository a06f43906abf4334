"""The upload store writes within its limits, and never delays an answer."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fixtures.faults import eventually
from lensmith.config import ServeSettings
from lensmith.errors import ServiceError
from lensmith.feedback import storage
from lensmith.feedback.storage import Upload
from lensmith.serving.feedback import upload_store
from lensmith.serving.feedback.upload_store import UploadStore

JPEG = b"\xff\xd8\xff" + b"j" * 9_997

Storing = Callable[..., UploadStore]


def upload(request_id: str) -> Upload:
    return Upload(
        request_id=request_id, at=datetime.now(UTC), model="colours", version="1", label="red", confidence=0.5,
        reason="unsure",
    )  # fmt: skip


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def keeping(settings: ServeSettings, registry: CollectorRegistry, tmp_path: Path) -> Iterator[Storing]:
    """`keeping(**settings)`: begun, and closed at the end."""
    made: list[UploadStore] = []

    def make(**changed: Any) -> UploadStore:
        made.append(UploadStore(tmp_path / "kept", settings.model_copy(update=changed), registry))
        made[-1].begin()
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_queued_uploads_are_written_before_the_service_ends(keeping: Storing, registry: CollectorRegistry) -> None:
    store = keeping()
    for number in range(20):
        assert store.offer(upload(str(number)), JPEG)
    store.close()
    assert len(storage.stored_uploads(store.folder)) == 20
    assert registry.get_sample_value("lensmith_kept_total", {"reason": "unsure"}) == 20
    assert registry.get_sample_value("lensmith_kept_dropped_total") == 0
    assert not store.offer(upload("late"), JPEG)


def test_the_folder_stays_within_its_bytes(keeping: Storing) -> None:
    store = keeping(keep_bytes=100_000)
    largest = 0
    for number in range(30):
        store.offer(upload(str(number)), JPEG)
        eventually(lambda number=number: storage.find(store.folder, str(number), 0))  # type: ignore[misc]
        largest = max(largest, sum(stored.bytes for stored in storage.stored_uploads(store.folder)))
    assert largest < 100_000 + 2 * len(JPEG)
    left = [stored.read() for stored in storage.stored_uploads(store.folder)]
    assert 5 < len(left) < 12
    assert left[-1] is not None
    assert left[-1].request_id == "29"


def test_uploads_that_are_too_old_are_removed_at_the_start(keeping: Storing, tmp_path: Path) -> None:
    storage.store(tmp_path / "kept", upload("old"), JPEG)
    keeping(keep_days=1e-9)
    eventually(lambda: not storage.stored_uploads(tmp_path / "kept"))


def test_a_full_disk_is_logged_once_until_there_is_room_again(
    keeping: Storing, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    def dropped() -> bool:
        return registry.get_sample_value("lensmith_kept_dropped_total") == 3

    monkeypatch.setattr(upload_store, "store", full)
    store = keeping()
    for number in range(3):
        assert store.offer(upload(str(number)), JPEG)
    eventually(dropped)
    monkeypatch.undo()
    store.offer(upload("after"), JPEG)
    with caplog.at_level("INFO"):
        store.close()
    assert [each.levelname for each in caplog.records if each.levelname == "WARNING"] == ["WARNING"]
    assert "No space left" in caplog.text
    assert len(storage.stored_uploads(store.folder)) == 1


def test_a_slow_disk_drops_uploads_without_blocking(
    keeping: Storing, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(upload_store, "store", lambda *_: go_on.wait(30) and 1)
    monkeypatch.setattr(upload_store, "QUEUED_BYTES", 5 * len(JPEG))
    store = keeping()
    taken = [store.offer(upload(str(number)), JPEG) for number in range(50)]  # returns, although nothing is written
    assert taken == [True] * 5 + [False] * 45
    assert registry.get_sample_value("lensmith_kept_dropped_total") == 45
    go_on.set()
    eventually(lambda: store.offer(upload("after"), JPEG))


def test_an_upload_larger_than_the_queue_is_stored(keeping: Storing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_store, "QUEUED_BYTES", 10)
    store = keeping()
    assert store.offer(upload("large"), JPEG)
    eventually(lambda: storage.stored_uploads(store.folder))


def test_a_folder_that_cannot_be_written_to_is_refused_at_the_start(
    settings: ServeSettings, registry: CollectorRegistry, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="--keep"):
        UploadStore(tmp_path / "file" / "kept", settings, registry)
