"""Several processes, as real processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.faults import ask, eventually, post, sample, workers_of
from fixtures.tokens import SECRET
from lensmith.bundle.format import Bundle
from lensmith.errors import ServiceError
from lensmith.serving.child_process import ServiceProcess, start_service

pytestmark = pytest.mark.slow

JSON = "Content-Type: application/json"


@pytest.fixture
def service(remake: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceProcess]:
    """Two processes that ask for tokens."""
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
    with start_service(remake("served").path, workers=2, threads=1, quota="none", deadline_ms=20_000) as service:
        yield service


def classify(service: ServiceProcess, image: bytes, times: int) -> set[str]:
    """Send an image on connections of their own, so that both processes get some; the versions that answered."""
    answers = [ask(service.url, "/predict", image) for _ in range(times)]
    assert {status for status, _, _ in answers} == {200}
    return {json.loads(body)["model"]["version"] for _, _, body in answers}


def counted(service: ServiceProcess) -> float:
    return sample(service.url, "lensmith_requests_total", route="/predict", status="200")


def swap(service: ServiceProcess, bundle: Path | None = None) -> tuple[int, dict[str, str]]:
    body = json.dumps({"bundle": str(bundle)} if bundle else {}).encode()
    status, _, answer = ask(service.url, "/admin/model", body, JSON)
    return status, json.loads(answer)


def test_metrics_add_up_over_processes_and_survive_the_death_of_one(service: ServiceProcess, red_png: bytes) -> None:
    assert len(workers_of(service)) == 2
    classify(service, red_png, 40)
    assert counted(service) == 40
    dead = workers_of(service)[0]
    dead.kill()
    eventually(lambda: sample(service.url, "lensmith_worker_restarts_total") == 1)
    eventually(lambda: len(workers_of(service)) == 2 and dead not in workers_of(service))
    classify(service, red_png, 10)
    assert counted(service) == 50
    eventually(lambda: sample(service.url, "lensmith_threads") == 2)
    assert sample(service.url, "lensmith_memory_bytes") > 5e7


def test_a_swap_is_taken_by_every_process_and_by_those_that_come_later(
    service: ServiceProcess, remake: Callable[..., Bundle], red_png: bytes
) -> None:
    status, model = swap(service, remake("newer", version="2").path)
    assert (status, model["version"]) == (200, "2")
    eventually(lambda: classify(service, red_png, 30) == {"2"} and len(workers_of(service)) == 2)
    workers_of(service)[0].kill()
    eventually(lambda: sample(service.url, "lensmith_worker_restarts_total") == 1 and len(workers_of(service)) == 2)
    eventually(lambda: sample(service.url, "lensmith_threads") == 2)
    assert classify(service, red_png, 30) == {"2"}


def test_what_replaced_processes_have_counted_counts_on_in_one_file(service: ServiceProcess, red_png: bytes) -> None:
    for swaps in (1, 2, 3):
        classify(service, red_png, 10)
        assert swap(service)[0] == 200
        eventually(lambda: len(workers_of(service)) == 2)
        assert counted(service) == 10 * swaps
    (folder,) = {each.environ()["PROMETHEUS_MULTIPROC_DIR"] for each in workers_of(service)}
    counters = list(Path(folder).glob("counter*"))
    assert len(counters) <= 4  # two processes, the supervisor, the dead


def test_a_bundle_that_cannot_be_served_is_taken_by_none(service: ServiceProcess, tmp_path: Path) -> None:
    status, problem = swap(service, tmp_path / "nothing")
    assert (status, problem["type"]) == (422, "urn:lensmith:problem:unusable-bundle")
    eventually(lambda: len(workers_of(service)) == 2)
    assert swap(service)[0] == 200  # and the next one may come


def test_a_hangup_reads_the_bundle_again(
    service: ServiceProcess, remake: Callable[..., Bundle], red_png: bytes
) -> None:
    assert isinstance(service.process.args, list)
    shutil.rmtree(service.process.args[4])
    remake("served", version="9")
    service.process.send_signal(signal.SIGHUP)
    eventually(lambda: classify(service, red_png, 10) == {"9"})


def test_the_processes_end_with_their_supervisor(service: ServiceProcess) -> None:
    found = workers_of(service)
    assert service.stop() == 0
    assert not any(each.is_running() for each in found)


def test_a_damaged_bundle_stops_the_start_with_the_reason(remake: Callable[..., Bundle]) -> None:
    broken = remake("broken").path
    with (broken / "model.onnx").open("ab") as graph:
        graph.write(b"x")
    with pytest.raises(ServiceError, match=r"exit code 2.*model\.onnx has changed"):
        start_service(broken, workers=2)


def test_a_signal_to_all_processes_at_once_cuts_nothing_off(colour_bundle: Bundle) -> None:
    command = [sys.executable, "-m", "lensmith", "serve", str(colour_bundle.path), "--port=0", "--workers=2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    host, port = process.stdout.readline().split()[-1].removeprefix("http://").split(":")
    whole = post(b"\xff\xd8\xff" + bytes(97))
    with socket.create_connection((host, int(port)), 30) as slow:
        slow.sendall(whole[:-97])
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGTERM)  # as systemd and a terminal do
        time.sleep(1)
        slow.sendall(whole[-97:])
        assert slow.recv(4096).startswith(b"HTTP/1.1 422 ")  # read to its end, and answered
    assert process.wait(30) == 0
    process.stdout.close()
