"""Stored uploads on disk: complete or absent, private, within limits."""

import os
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lensmith.feedback import storage
from lensmith.feedback.storage import Upload

JPEG, PNG = b"\xff\xd8\xff" + b"j" * 97, b"\x89PNG\r\n\x1a\n" + b"p" * 92


def upload(request_id: str = "one", image: int = 0, **fields: Any) -> Upload:
    given = {
        "at": datetime(2026, 11, 26, 12, tzinfo=UTC), "model": "colours", "version": "1", "label": "red",
        "confidence": 0.5, "reason": "unsure", **fields,
    }  # fmt: skip
    return Upload.model_validate({"request_id": request_id, "image": image, **given})


def sidecar_of(folder: Path, request_id: str, image: int) -> Path:
    """The JSON file of an upload that is there."""
    sidecar = storage.find(folder, request_id, image)
    assert sidecar is not None
    return sidecar


@pytest.fixture
def aged(tmp_path: Path) -> Callable[[str, float], None]:
    """`aged(request_id, seconds)`: an upload of that age, 100 bytes of JPEG."""

    def make(request_id: str, seconds: float) -> None:
        storage.store(tmp_path, upload(request_id), JPEG)
        os.utime(sidecar_of(tmp_path, request_id, 0).with_suffix(".jpg"), (time.time() - seconds,) * 2)

    return make


def test_an_upload_is_found_with_all_its_fields(tmp_path: Path) -> None:
    one, two = upload(top=(("red", 0.5), ("blue", 0.3)), tag="colours-1/champion"), upload(image=1)
    assert storage.store(tmp_path, one, JPEG) > len(JPEG)
    storage.store(tmp_path, two, PNG)
    found = sorted(storage.stored_uploads(tmp_path), key=lambda stored: stored.image.suffix)
    assert [(stored.read(), stored.image.suffix) for stored in found] == [(one, ".jpg"), (two, ".png")]
    sidecar = sidecar_of(tmp_path, "one", 1)
    assert storage.read(sidecar) == two
    assert sidecar.parent.name == "2026-11-26"
    assert storage.find(tmp_path, "one", 2) is None
    assert storage.find(tmp_path, "other", 0) is None


def test_folders_and_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "kept"
    storage.store(folder, upload(), JPEG)
    sidecar = sidecar_of(folder, "one", 0)
    storage.write_truth(sidecar, "blue")
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_true_label_is_written_once(tmp_path: Path) -> None:
    storage.store(tmp_path, upload(), JPEG)
    sidecar = sidecar_of(tmp_path, "one", 0)
    assert storage.write_truth(sidecar, "blue")
    assert not storage.write_truth(sidecar, "green")
    found = storage.read(sidecar)
    assert found is not None
    assert found.truth == "blue"
    assert not storage.write_truth(sidecar.with_stem("gone"), "blue")


def test_an_identifier_used_again_replaces_an_upload_without_a_true_label(tmp_path: Path) -> None:
    storage.store(tmp_path, upload(), JPEG)
    storage.store(tmp_path, upload(label="blue"), PNG)
    (stored,) = storage.stored_uploads(tmp_path)
    found = stored.read()
    assert found is not None
    assert (found.label, stored.image.read_bytes()) == ("blue", PNG)
    storage.write_truth(stored.sidecar, "green")
    assert storage.store(tmp_path, upload(label="red"), JPEG) == 0
    (stored,) = storage.stored_uploads(tmp_path)
    assert (stored.read() or found).truth == "green"
    assert stored.image.read_bytes() == PNG
    assert len(list(stored.image.parent.iterdir())) == 2


@pytest.mark.parametrize("fails", [1, 2])
def test_of_an_upload_that_cannot_be_written_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    opened = os.fdopen
    calls = 0

    def full(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fails:
            os.close(args[0])
            raise OSError(28, "No space left on device")
        return opened(*args, **kwargs)

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="No space"):
        storage.store(tmp_path, upload(), JPEG)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []
    storage.store(tmp_path, upload(), JPEG)
    assert len(storage.stored_uploads(tmp_path)) == 1


def test_the_oldest_go_first(tmp_path: Path, aged: Callable[[str, float], None]) -> None:
    for number, age in enumerate((50, 400, 300, 200, 100)):
        aged(str(number), age)
    one = storage.stored_uploads(tmp_path)[0].bytes
    assert storage.trim(tmp_path, 3 * one, 100, 0) == (3 * one, 3)
    assert [(stored.read() or upload()).request_id for stored in storage.stored_uploads(tmp_path)] == ["3", "4", "0"]
    assert storage.trim(tmp_path, 3 * one, 2, 0) == (2 * one, 2)
    assert storage.trim(tmp_path, 3 * one, 2, time.time() - 75) == (one, 1)
    assert storage.trim(tmp_path, 0, 2, 0) == (0, 0)
    assert list(tmp_path.iterdir()) == []  # folders of days, too


def test_abandoned_incomplete_uploads_are_removed_and_foreign_files_stay(
    tmp_path: Path, aged: Callable[[str, float], None]
) -> None:
    aged("whole", 10)
    day = storage.stored_uploads(tmp_path)[0].image.parent
    stem = storage.stem_of("half", 0)
    for name in (f"{stem}.jpg", f".{stem}.json.99.partial"):
        (day / name).write_bytes(b"x")
    (tmp_path / "mine.txt").write_text("stays")
    (tmp_path / "photos").mkdir()
    storage.trim(tmp_path, 10**9, 100, 0)
    assert len(list(day.iterdir())) == 4  # somebody may be at them
    for name in (f"{stem}.jpg", f".{stem}.json.99.partial"):
        os.utime(day / name, (0, 0))
    storage.trim(tmp_path, 10**9, 100, 0)
    assert len(list(day.iterdir())) == 2
    assert len(storage.stored_uploads(tmp_path)) == 1
    storage.trim(tmp_path, 0, 0, 0)
    assert {each.name for each in tmp_path.iterdir()} == {"mine.txt", "photos"}


def test_damaged_and_foreign_files_are_no_uploads(tmp_path: Path, aged: Callable[[str, float], None]) -> None:
    aged("whole", 10)
    (stored,) = storage.stored_uploads(tmp_path)
    (stored.sidecar.parent / "notes.json").write_text("{}")
    assert len(storage.stored_uploads(tmp_path)) == 1
    stored.sidecar.write_text('{"request_id": ')
    assert stored.read() is None
    assert storage.stored_uploads(tmp_path / "nowhere") == []


def test_file_names_are_hashes() -> None:
    for request_id in ("../../etc/passwd", "a/b", "x" * 128, ".", "\udce4"):
        stem = storage.stem_of(request_id, 3)
        assert len(stem) == 34
        assert set(stem[:32]) <= set("0123456789abcdef")
    assert storage.stem_of("a", 1) != storage.stem_of("a", 11) != storage.stem_of("b", 11)
