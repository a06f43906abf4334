"""Several processes, as real processes."""

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import psutil
import pytest

from lensmith.bundle.format import Bundle
from lensmith.errors import ServiceError
from lensmith.serving.child_process import ServiceProcess, start_service

pytestmark = pytest.mark.slow


SECRET = "a secret of this test, 32 bytes or more"


@pytest.fixture
def service(remake: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceProcess]:
    """Two processes that ask for tokens."""
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
    with start_service(remake("served").path, workers=2, threads=1, quota="none") as service:
        yield service


def token() -> str:
    claims = {"sub": "a", "iss": "lensmith", "aud": "lensmith", "exp": int(time.time()) + 600}
    return jwt.encode({**claims, "scope": "predict admin"}, SECRET)


def ask(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request(method, path, body, {"authorization": f"Bearer {token()}", **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def workers_of(service: ServiceProcess) -> list[psutil.Process]:
    """Its processes that answer; not the one that multiprocessing keeps for itself."""
    found = []
    for child in psutil.Process(service.process.pid).children():
        with suppress(psutil.Error):  # it ended meanwhile
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child)
    return found


def metric(url: str, name: str) -> float:
    lines = ask(url, "GET", "/metrics")[1].decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_metrics_add_up_over_processes_and_survive_the_death_of_one(service: ServiceProcess, red_png: bytes) -> None:
    assert len(workers_of(service)) == 2
    for _ in range(40):  # each on a connection of its own, so that both processes have some
        assert ask(service.url, "POST", "/predict", red_png)[0] == 200
    counted = 'lensmith_requests_total{route="/predict",status="200"'
    assert metric(service.url, counted) == 40
    dead = workers_of(service)[0]
    dead.kill()
    until(lambda: metric(service.url, "lensmith_worker_restarts_total") == 1)
    until(lambda: len(workers_of(service)) == 2 and dead not in workers_of(service))
    for _ in range(10):
        assert ask(service.url, "POST", "/predict", red_png)[0] == 200
    assert metric(service.url, counted) == 50
    until(lambda: metric(service.url, "lensmith_threads ") == 2)
    assert metric(service.url, "lensmith_memory_bytes") > 5e7


def test_a_swap_is_taken_by_every_process_and_by_those_that_come_later(
    service: ServiceProcess, remake: Callable[..., Bundle], red_png: bytes
) -> None:
    def versions() -> set[str]:
        answers = [ask(service.url, "POST", "/predict", red_png)[1] for _ in range(30)]
        return {json.loads(answer)["model"]["version"] for answer in answers}

    newer = json.dumps({"bundle": str(remake("newer", version="2").path)})
    status, body = ask(service.url, "POST", "/admin/model", newer, **{"content-type": "application/json"})
    assert (status, json.loads(body)["version"]) == (200, "2")
    until(lambda: versions() == {"2"} and len(workers_of(service)) == 2)
    workers_of(service)[0].kill()
    until(lambda: metric(service.url, "lensmith_worker_restarts_total") == 1 and len(workers_of(service)) == 2)
    until(lambda: metric(service.url, "lensmith_threads ") == 2)
    assert versions() == {"2"}


def test_what_replaced_processes_have_counted_counts_on_in_one_file(service: ServiceProcess, red_png: bytes) -> None:
    counted = 'lensmith_requests_total{route="/predict",status="200"'
    for swaps in (1, 2, 3):
        for _ in range(10):
            assert ask(service.url, "POST", "/predict", red_png)[0] == 200
        assert ask(service.url, "POST", "/admin/model", "{}", **{"content-type": "application/json"})[0] == 200
        until(lambda: len(workers_of(service)) == 2)
        assert metric(service.url, counted) == 10 * swaps
    (environment,) = {each.environ()["PROMETHEUS_MULTIPROC_DIR"] for each in workers_of(service)}
    files = [file.name for file in Path(environment).iterdir()]
    assert sum(name.startswith("counter") for name in files) <= 4  # two processes, the supervisor, the dead


def test_a_bundle_that_cannot_be_served_is_taken_by_none(service: ServiceProcess, tmp_path: Path) -> None:
    nothing = json.dumps({"bundle": str(tmp_path / "nothing")})
    status, body = ask(service.url, "POST", "/admin/model", nothing, **{"content-type": "application/json"})
    assert (status, json.loads(body)["title"]) == (422, "The bundle cannot be served")
    until(lambda: len(workers_of(service)) == 2)
    # And the next one may come.
    assert ask(service.url, "POST", "/admin/model", "{}", **{"content-type": "application/json"})[0] == 200


def test_a_hangup_reads_the_bundle_again(service: ServiceProcess, remake: Callable[..., Bundle]) -> None:
    import shutil

    served = Path(json.loads(json.dumps(service.process.args))[4])
    shutil.rmtree(served)
    remake("served", version="9")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: {json.loads(ask(service.url, "GET", "/model")[1])["version"] for _ in range(10)} == {"9"})


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
    command = ["python", "-m", "lensmith", "serve", str(colour_bundle.path), "--port=0", "--workers=2", "--grace-s=20"]
    command[0] = os.sys.executable  # type: ignore[attr-defined]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    address = urlsplit(process.stdout.readline().split()[-1])
    slow = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    slow.putrequest("POST", "/predict")
    slow.putheader("content-length", "100")
    slow.endheaders(b"\xff\xd8\xff")
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGTERM)  # as systemd and a terminal do
    time.sleep(1)
    slow.send(bytes(97))
    assert slow.getresponse().status == 422  # read to its end, and answered
    slow.close()
    assert process.wait(30) == 0
    process.stdout.close()
