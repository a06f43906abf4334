"""Replicas that are killed and stopped while clients send: no request is lost."""

import signal
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from fixtures.faults import Load, Serve, figures, sized
from lensmith.bundle.format import Bundle
from lensmith.serving.child_process import ServiceProcess, start_service

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy waits as long as the replicas do: this machine may be busy with other tests."""
    monkeypatch.setenv("LENSMITH_SERVE_DEADLINE_MS", "20000")


def test_a_replica_killed_behind_nginx_costs_no_request(
    proxy: Callable[..., Any], serve: Serve, predict: bytes
) -> None:
    requests = sized(2000, 10_000)
    replicas = [serve(threads=1), serve(threads=1)]
    front = proxy(*(each.url for each in replicas))
    with Load(front.url, predict, most=requests) as clients:
        clients.until(requests // 4)
        replicas[0].process.kill()
        outcome = clients.wait()
    again = '"replica_status":"502, 200"' in front.log()
    figures(statuses=outcome.statuses, lost=outcome.lost, asked_again=again, p99_ms=outcome.p99_ms())
    assert outcome.lost == []
    assert outcome.statuses == {200: requests}
    assert again
    # And where the last one is killed, too, the envelope says so.
    with Load(front.url, predict) as clients:
        clients.until(200)
        replicas[1].process.kill()
        clients.until(clients.outcome.answered + 200)
        outcome = clients.stop()
    figures(statuses=outcome.statuses, lost=outcome.lost)
    assert outcome.lost == []
    assert set(outcome.statuses) == {200, 503}


@pytest.mark.timeout(900)
def test_replicas_restarted_one_after_the_other_behind_nginx_cost_no_request(
    proxy: Callable[..., Any], colour_bundle: Bundle, free_port: Callable[[], int], predict: bytes
) -> None:
    rounds = sized(1, 5)

    def start(port: int) -> ServiceProcess:
        return start_service(colour_bundle.path, port, threads=1, batching="off")

    replicas = [start(free_port()), start(free_port())]
    ports = [int(each.url.rpartition(":")[2]) for each in replicas]
    try:
        front = proxy(*(each.url for each in replicas))
        with Load(front.url, predict) as clients:
            for number in range(2 * rounds):
                clients.until(clients.outcome.answered + 500)
                assert replicas[number % 2].stop() == 0
                replicas[number % 2] = start(ports[number % 2])
            clients.until(clients.outcome.answered + 500)
            outcome = clients.stop()
    finally:
        for each in replicas:
            each.stop()
    figures(restarts=2 * rounds, statuses=outcome.statuses, lost=outcome.lost, p99_ms=outcome.p99_ms())
    assert outcome.lost == []
    assert set(outcome.statuses) == {200}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_service_stopped_with_kept_connections_answers_all_that_was_sent(
    serve: Serve, predict: bytes, stop: signal.Signals
) -> None:
    answered, lost = 0, []
    for _ in range(sized(1, 5)):
        service = serve()
        with Load(service.url, predict) as clients:
            clients.until(sized(300, 1000))
            service.process.send_signal(stop)
            outcome = clients.wait()  # the clients go home once they are refused
        assert service.process.wait(30) == 0
        assert set(outcome.statuses) == {200}
        assert outcome.refused > 0
        answered, lost = answered + outcome.answered, lost + outcome.lost
    figures(answered=answered, lost=lost)
    assert lost == []


@pytest.mark.timeout(900)
def test_a_signal_to_all_processes_at_once_loses_no_request_and_cuts_no_upload_off(
    serve: Serve, predict: bytes
) -> None:
    answered, lost = 0, []
    for _ in range(sized(1, 10)):
        service = serve(workers=2, threads=1)
        address = urlsplit(service.url)
        with Load(service.url, predict) as clients:
            clients.until(sized(500, 1000))
            slow = socket.create_connection((address.hostname, address.port), 30)
            slow.sendall(predict[:-97])
            time.sleep(0.3)
            # As systemd and a terminal do: the supervisor, its processes, and their helpers.
            for each in [*psutil.Process(service.process.pid).children(recursive=True), service.process]:
                each.send_signal(signal.SIGTERM)
            outcome = clients.wait()
        time.sleep(0.5)
        with slow:
            slow.sendall(predict[-97:])
            assert slow.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert service.process.wait(30) == 0
        assert set(outcome.statuses) == {200}
        answered, lost = answered + outcome.answered, lost + outcome.lost
    figures(answered=answered, lost=lost)
    assert lost == []
