"""Several processes of one service, of which some are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from fixtures.faults import Load, Serve, ask, eventually, figures, sample, sized, workers_of
from lensmith.bundle.format import Bundle
from lensmith.serving.child_process import ServiceProcess

pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
def test_a_killed_process_is_replaced_while_the_others_answer_and_counts_stay_right(
    serve: Serve, predict: bytes
) -> None:
    kills = sized(2, 10)
    service = serve(workers=2, threads=1)
    counted = [0.0]
    with Load(service.url, predict, clients=6, patient=True) as clients:
        for _ in range(kills):
            clients.until(clients.outcome.answered + 200)
            before = workers_of(service)
            killed = before[0].pid
            os.kill(killed, signal.SIGKILL)
            clients.until(clients.outcome.answered + 200)  # the other answers
            eventually(
                lambda killed=killed: (
                    len(workers_of(service)) == 2 and killed not in {each.pid for each in workers_of(service)}
                )
            )
            counted.append(sample(service.url, "lensmith_requests_total", route="/predict", status="200"))
        outcome = clients.stop()
    # The connections of the killed process break, with what is under way on them; nothing else is lost.
    assert len(outcome.lost) <= 6 * kills
    assert set(outcome.statuses) == {200}
    total = sample(service.url, "lensmith_requests_total", route="/predict", status="200")
    restarts = sample(service.url, "lensmith_worker_restarts_total")
    figures(answered=outcome.answered, counted=total, lost=len(outcome.lost), restarts=restarts)
    assert counted == sorted(counted)
    # A process may have counted an answer, and been killed before its client had it.
    assert outcome.answered <= total <= outcome.answered + len(outcome.lost)
    assert restarts == kills
    eventually(lambda: sample(service.url, "lensmith_ready") == 1)
    assert ask(service.url, "/readyz")[0] == 200
    left = workers_of(service)
    assert service.stop() == 0
    assert not any(each.is_running() for each in left)


def test_processes_end_with_their_supervisor(serve: Serve) -> None:
    service = serve(workers=2, threads=1)
    children = psutil.Process(service.process.pid).children(recursive=True)
    assert len(workers_of(service)) == 2
    service.process.kill()
    eventually(lambda: not any(each.is_running() and each.status() != "zombie" for each in children))
    with pytest.raises(ConnectionError):
        ask(service.url, "/livez")


def test_a_process_that_hangs_at_the_end_does_not_hold_up_the_stop(serve: Serve) -> None:
    service = serve(workers=2, threads=1, grace_s=1)
    stuck = workers_of(service)[0]
    stuck.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        service.process.terminate()
        assert service.process.wait(60) == 0
        assert time.monotonic() - started < 30
    finally:
        if stuck.is_running():
            stuck.kill()


def test_a_process_that_hangs_is_replaced_and_those_that_work_are_left_alone(
    colour_bundle: Bundle, free_port: Callable[[], int], predict: bytes
) -> None:
    port = free_port()
    program = (
        "from lensmith.serving.server import worker_group as group; "
        "group.HANG_TIMEOUT_S, group.HANG_CHECK_S = 3.0, 0.5; "
        f"from lensmith import api; api.serve({str(colour_bundle.path)!r}, port={port}, workers=2, threads=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    service = ServiceProcess(process.stdout.readline().split()[-1], process)
    with service:
        stuck, works = workers_of(service)
        stuck.send_signal(signal.SIGSTOP)
        eventually(lambda: not stuck.is_running() and len(workers_of(service)) == 2)
        eventually(lambda: sample(service.url, "lensmith_ready") == 1)
        with Load(service.url, predict, most=200) as clients:
            assert clients.wait().statuses == {200: 200}
        assert works.is_running()
        assert sample(service.url, "lensmith_worker_restarts_total") == 1
