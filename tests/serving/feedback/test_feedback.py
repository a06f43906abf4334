"""Active learning: which uploads are stored for labelling; feedback over the processes of a service."""

import contextlib
import json
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fixtures.faults import ask, eventually, sample, workers_of
from lensmith.bundle.drift import Reference
from lensmith.bundle.format import Bundle
from lensmith.feedback import storage
from lensmith.inference.classifier import load
from lensmith.serving.child_process import ServiceProcess, start_service
from lensmith.serving.feedback import feedback, upload_store

Serving = Callable[..., TestClient]


def reasons(folder: Path) -> dict[str, str]:
    """Identifier of the request → reason for storing its upload."""
    return {found.request_id: found.reason for stored in storage.stored_uploads(folder) if (found := stored.read())}


@pytest.fixture
def serving(client_of: Serving, tmp_path: Path) -> Iterator[Serving]:
    """`serving(classifier, **settings)`: a service that stores uploads in tmp_path/kept."""
    with ExitStack() as stack:
        yield lambda *model, **changed: stack.enter_context(client_of(*model, keep=tmp_path / "kept", **changed))


def send(client: TestClient, image: bytes, request_id: str) -> None:
    assert client.post("/predict", content=image, headers={"X-Request-ID": request_id}).status_code == 200


@pytest.mark.parametrize("abstains", [False, True])
def test_uploads_with_low_confidence_or_an_abstention_are_stored(
    serving: Serving, tmp_path: Path, between: Path, red_png: bytes, unsure_bundle: Bundle, abstains: bool
) -> None:
    # An abstention counts whatever the limit of confidence.
    client = serving(load(unsure_bundle.path), keep_below=0.0) if abstains else serving(keep_below=0.8)
    send(client, red_png, "sure")
    send(client, between.read_bytes(), "unsure")
    eventually(lambda: reasons(tmp_path / "kept") == {"unsure": "unsure"})
    (stored,) = storage.stored_uploads(tmp_path / "kept")
    assert storage.read(stored.sidecar).abstained == abstains  # type: ignore[union-attr]


def test_out_of_distribution_uploads_are_stored_by_the_reference_of_the_bundle(
    serving: Serving, tmp_path: Path, between: Path, red_png: bytes, remake: Callable[..., Bundle]
) -> None:
    probabilities = np.full((200, 3), 0.01, dtype=np.float32)
    probabilities[np.arange(200), np.arange(200) % 3] = 0.98
    bundle = remake("with-reference", reference=Reference.of("val", probabilities))
    client = serving(load(bundle.path), keep_below=0.1)
    send(client, red_png, "ordinary")
    send(client, between.read_bytes(), "odd")
    eventually(lambda: reasons(tmp_path / "kept") == {"odd": "odd"})


def test_a_random_share_of_all_uploads_is_stored(
    serving: Serving, tmp_path: Path, between: Path, red_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter([0.01, 0.9, 0.2, 0.19])
    monkeypatch.setattr(feedback.random, "random", lambda: next(drawn))
    client = serving(keep_below=0.8, keep_share=0.2)
    for number, image in enumerate((red_png, red_png, between.read_bytes(), between.read_bytes())):
        send(client, image, str(number))
    eventually(lambda: reasons(tmp_path / "kept") == {"0": "random", "2": "unsure", "3": "random"})


def test_folder_and_limits_are_logged_at_the_start(
    serving: Serving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "lensmith.serving.feedback"):
        serving()
    (line,) = [each.getMessage() for each in caplog.records if "stored in" in each.getMessage()]
    for text in (str(tmp_path / "kept"), "30 days", "1,000 MB"):
        assert text in line


def test_a_full_disk_disturbs_no_answer(serving: Serving, red_png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upload_store, "store", full)
    monkeypatch.setattr(feedback, "UNTIL_WRITTEN_S", 0.1)
    client = serving(keep_share=1.0)
    for number in range(5):
        send(client, red_png, str(number))
    eventually(lambda: "lensmith_kept_dropped_total 5.0" in client.get("/metrics").text)
    answers = client.post("/feedback", json={"request_id": "3", "label": "red"}).json()
    assert (answers["new"], answers["noted"]) == (True, False)


def test_feedback_that_comes_before_the_disk_is_done_is_noted(
    serving: Serving, tmp_path: Path, red_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, looked = storage.store, storage.find

    def slow(*args: Any) -> int:
        eventually(lambda: asked)
        return keep(*args)

    asked: list[str] = []

    def find(folder: Path, request_id: str, image: int) -> Path | None:
        asked.append(request_id)
        return looked(folder, request_id, image)

    monkeypatch.setattr(upload_store, "store", slow)
    monkeypatch.setattr(storage, "find", find)
    monkeypatch.setattr(feedback, "UNTIL_WRITTEN_S", 30.0)
    client = serving(keep_share=1.0)
    send(client, red_png, "early")
    assert client.post("/feedback", json={"request_id": "early", "label": "blue"}).json()["noted"]
    (stored,) = storage.stored_uploads(tmp_path / "kept")
    found = stored.read()
    assert found is not None
    assert found.truth == "blue"


@pytest.mark.slow
def test_each_process_knows_what_the_others_answered_none_counts_twice_and_answers_outlive_them(
    colour_bundle: Bundle, tmp_path: Path, red_png: bytes
) -> None:
    settings = {"threads": 1, "batching": "off", "deadline_ms": 20_000, "keep": tmp_path / "kept", "keep_share": 1.0}
    with start_service(colour_bundle.path, workers=3, **settings) as several:
        require_shared_feedback(several, tmp_path / "kept", red_png)
        require_answers_that_outlive_processes(several, red_png)


def require_shared_feedback(several: ServiceProcess, kept: Path, red_png: bytes) -> None:
    def one(number: int) -> None:
        name = f"request-{number}"
        assert ask(several.url, "/predict", red_png, f"X-Request-ID: {name}")[0] == 200
        body = json.dumps({"request_id": name, "label": "red" if number % 4 else "green"}).encode()
        with ThreadPoolExecutor(3) as pool:  # at once, and whichever process takes it
            answers = list(pool.map(lambda _: ask(several.url, "/feedback", body), range(3)))
        assert [status for status, _, _ in answers] == [200] * 3
        assert sum(json.loads(answer)["new"] for _, _, answer in answers) == 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(40)))
    for _ in range(5):  # whichever process is asked
        (counts,) = json.loads(ask(several.url, "/feedback")[2])["versions"]
        assert (counts["version"], counts["labels"], counts["right"]) == ("1", 40, 30)
    assert sample(several.url, "lensmith_feedback_total", outcome="right", version="1") == 30
    assert sample(several.url, "lensmith_feedback_total", outcome="wrong", version="1") == 10
    uploads = [stored.read() for stored in storage.stored_uploads(kept)]
    assert sorted(upload.truth or "" for upload in uploads if upload) == ["green"] * 10 + ["red"] * 30


def shared_answers(prefix: str) -> int:
    """How many answers with such an identifier stand in a table that processes of this machine share."""
    found = 0
    for folder in ("/dev/shm", tempfile.gettempdir()):
        for file in Path(folder).glob("lensmith-metrics-*/answers.sqlite"):
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file)) as table:
                asked = "SELECT count(*) FROM answers WHERE request_id LIKE ?"
                found += table.execute(asked, (f"{prefix}-%",)).fetchone()[0]
    return found


def require_answers_that_outlive_processes(several: ServiceProcess, red_png: bytes) -> None:
    mine = uuid.uuid4().hex
    names = [f"{mine}-{number}" for number in range(10)]
    for name in names:
        ask(several.url, "/predict", red_png, f"X-Request-ID: {name}")
    eventually(lambda: shared_answers(mine) == 10)
    for worker in workers_of(several)[:2]:
        worker.kill()
    for name in names:
        body = json.dumps({"request_id": name, "label": "red"}).encode()

        def accepted(body: bytes = body) -> bool:
            try:
                status, _, answer = ask(several.url, "/feedback", body)
            except OSError:  # it was just with the one that was killed
                return False
            assert status == 200, answer
            return True

        eventually(accepted)
    assert json.loads(ask(several.url, "/feedback")[2])["versions"][0]["labels"] == 40 + 10
