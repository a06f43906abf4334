"""Kept uploads on disk: whole or not there, for their owner alone, never beyond bounds."""

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
    return Upload.model_validate(
        {
            "request_id": request_id,
            "image": image,
            "at": datetime(2026, 11, 26, 12, tzinfo=UTC),
            "model": "colours",
            "version": "1",
            "label": "red",
            "confidence": 0.5,
            "reason": "unsure",
            **fields,
        }
    )


@pytest.fixture
def aged(tmp_path: Path) -> Callable[[str, float], None]:
    """`aged(request_id, seconds)`: an upload of that age, 100 bytes of JPEG."""

    def make(request_id: str, seconds: float) -> None:
        storage.keep(tmp_path, upload(request_id), JPEG)
        (entry,) = storage.of_request(tmp_path, request_id)
        os.utime(entry.image, (time.time() - seconds,) * 2)

    return make


def test_an_upload_is_found_with_all_that_was_known_of_it(tmp_path: Path) -> None:
    one, two = upload(top=(("red", 0.5), ("blue", 0.3)), tag="colours-1/champion"), upload(image=1)
    assert storage.keep(tmp_path, one, JPEG) > len(JPEG)
    storage.keep(tmp_path, two, PNG)
    assert [entry.read() for entry in storage.of_request(tmp_path, "one")] == [one, two]
    assert [entry.image.suffix for entry in storage.of_request(tmp_path, "one")] == [".jpg", ".png"]
    sidecar = storage.find(tmp_path, "one", 1)
    assert sidecar is not None
    assert storage.read(sidecar) == two
    assert sidecar.parent.name == "2026-11-26"
    assert storage.find(tmp_path, "one", 2) is None
    assert storage.find(tmp_path, "other", 0) is None


def test_nobody_else_may_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "kept"
    storage.keep(folder, upload(), JPEG)
    sidecar = storage.find(folder, "one", 0)
    assert sidecar is not None
    storage.note(sidecar, "blue")
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_truth_is_noted_once(tmp_path: Path) -> None:
    storage.keep(tmp_path, upload(), JPEG)
    sidecar = storage.find(tmp_path, "one", 0)
    assert sidecar is not None
    assert storage.note(sidecar, "blue")
    assert not storage.note(sidecar, "green")
    found = storage.read(sidecar)
    assert found is not None
    assert found.truth == "blue"
    assert not storage.note(sidecar.with_stem("gone"), "blue")


def test_an_identifier_used_again_replaces_what_was_not_judged(tmp_path: Path) -> None:
    storage.keep(tmp_path, upload(), JPEG)
    storage.keep(tmp_path, upload(label="blue"), PNG)
    (entry,) = storage.entries(tmp_path)
    found = entry.read()
    assert found is not None
    assert (found.label, entry.image.read_bytes()) == ("blue", PNG)
    storage.note(entry.sidecar, "green")
    assert storage.keep(tmp_path, upload(label="red"), JPEG) == 0
    (entry,) = storage.entries(tmp_path)
    assert (entry.read() or found).truth == "green"
    assert entry.image.read_bytes() == PNG
    assert len(list(entry.image.parent.iterdir())) == 2


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
        storage.keep(tmp_path, upload(), JPEG)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []
    storage.keep(tmp_path, upload(), JPEG)
    assert len(storage.entries(tmp_path)) == 1


def test_the_oldest_go_first(tmp_path: Path, aged: Callable[[str, float], None]) -> None:
    for number, age in enumerate((50, 400, 300, 200, 100)):
        aged(str(number), age)
    one = storage.entries(tmp_path)[0].bytes
    assert storage.trim(tmp_path, 3 * one, 100, 0) == (3 * one, 3)
    assert [(entry.read() or upload()).request_id for entry in storage.entries(tmp_path)] == ["3", "4", "0"]
    assert storage.trim(tmp_path, 3 * one, 2, 0) == (2 * one, 2)
    assert storage.trim(tmp_path, 3 * one, 2, time.time() - 75) == (one, 1)
    assert storage.trim(tmp_path, 0, 2, 0) == (0, 0)
    assert list(tmp_path.iterdir()) == []  # folders of days, too


def test_halves_that_nobody_finishes_are_removed_and_others_files_stay(
    tmp_path: Path, aged: Callable[[str, float], None]
) -> None:
    aged("whole", 10)
    day = storage.entries(tmp_path)[0].image.parent
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
    assert len(storage.entries(tmp_path)) == 1
    storage.trim(tmp_path, 0, 0, 0)
    assert {each.name for each in tmp_path.iterdir()} == {"mine.txt", "photos"}


def test_damaged_and_foreign_files_are_no_uploads(tmp_path: Path, aged: Callable[[str, float], None]) -> None:
    aged("whole", 10)
    (entry,) = storage.entries(tmp_path)
    (entry.sidecar.parent / "notes.json").write_text("{}")
    assert len(storage.entries(tmp_path)) == 1
    entry.sidecar.write_text('{"request_id": ')
    assert entry.read() is None
    assert storage.entries(tmp_path / "nowhere") == []


def test_names_come_from_no_client() -> None:
    for request_id in ("../../etc/passwd", "a/b", "x" * 128, ".", "\udce4"):
        stem = storage.stem_of(request_id, 3)
        assert len(stem) == 34
        assert set(stem[:32]) <= set("0123456789abcdef")
    assert storage.stem_of("a", 1) != storage.stem_of("a", 11) != storage.stem_of("b", 11)
