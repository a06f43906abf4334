"""Clients that leave, that send as slowly as they can, and that send many requests."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from fixtures.faults import Load, Serve, ask, eventually, figures, sample, sized, usage
from lensmith.bundle.format import Bundle
from lensmith.serving.child_process import ServiceProcess, start_service

pytestmark = pytest.mark.slow


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), 60)


@pytest.fixture(scope="module")
def service(colour_bundle: Bundle) -> Iterator[ServiceProcess]:
    """A service that waits little for slow clients."""
    settings = {"upload_timeout_s": 4, "upload_memory": 50_000_000, "deadline_ms": 20_000, "batching": "off"}
    with start_service(colour_bundle.path, **settings) as service:
        yield service


@pytest.mark.timeout(900)
def test_clients_that_leave_half_way_leave_nothing_behind(serve: Serve, predict: bytes, picture: bytes) -> None:
    leaving = sized(2000, 10_000)
    service = serve(threads=1)
    head, whole = predict.index(b"\r\n\r\n") + 4, len(predict)
    cuts = (5, head - 2, head, head + 100, whole - 1, whole)  # the last waits, or is worked on

    def leave(number: int) -> None:
        client = connect(service.url)
        if number % 2:  # a reset in the place of a goodbye
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(predict[: cuts[number % len(cuts)]])
        if number % 5 == 0:
            time.sleep(0.002)
        client.close()

    def crowd(count: int) -> None:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(leave, range(count)))
        # This scrape alone is under way.
        eventually(lambda: sample(service.url, "lensmith_requests_in_flight") == 1)
        eventually(lambda: sample(service.url, "lensmith_images_queued") == 0)
        eventually(lambda: sample(service.url, "lensmith_images_running") == 0)

    crowd(leaving // 5)
    before = usage(service.process.pid)
    crowd(leaving)
    after = usage(service.process.pid)
    left = sample(service.url, "lensmith_requests_total", status="499")
    figures(clients=leaving + leaving // 5, counted_as_left=left, before=before, after=after)
    assert left > leaving / 10
    assert after.files <= before.files + 2
    assert after.threads == before.threads
    assert after.rss_mb < before.rss_mb * 1.05 + 5
    assert ask(service.url, "/predict", picture)[0] == 200
    assert service.stop() == 0


@pytest.mark.timeout(300)
def test_slow_senders_are_ended_and_hurt_nobody(service: ServiceProcess, predict: bytes) -> None:
    each_way = sized(80, 400)
    quiet = usage(service.process.pid)
    with Load(service.url, predict, clients=4, most=sized(500, 3000)) as clients:
        alone = clients.wait()

    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    body = head + b"Content-Length: 1000000\r\n\r\n\xff\xd8\xff"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    refused = body.replace(b"/predict", b"/nowhere")
    starts = {"head": head + b"X: ", "body": body, "chunked": chunked, "nothing": b"", "refused": refused}
    drips = {"head": b"y", "body": b"y", "chunked": b"1\r\ny\r\n", "nothing": b"", "refused": b"y"}
    open_ones: dict[socket.socket, str] = {}
    for way, start in starts.items():
        for _ in range(each_way):
            client = connect(service.url)
            client.sendall(start)
            client.setblocking(False)
            open_ones[client] = way
    stop, heard = threading.Event(), dict.fromkeys(starts, b"")
    ended: list[str] = []

    def drip() -> None:
        while open_ones and not stop.wait(0.3):
            for client, way in list(open_ones.items()):
                try:
                    client.send(drips[way])
                    received = client.recv(4096)
                except BlockingIOError:
                    continue
                except OSError:
                    received = b""
                heard[way] = received or heard[way]
                if not received:
                    ended.append(way)
                    del open_ones[client]
                    client.close()

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with Load(service.url, predict, clients=4, most=sized(500, 3000)) as clients:
            beside = clients.wait()
        eventually(lambda: not open_ones)
    finally:
        stop.set()
        dripping.join()
    eventually(lambda: sample(service.url, "lensmith_requests_in_flight") == 1)
    eventually(lambda: usage(service.process.pid).files <= quiet.files + 8)
    medians = [float(np.median(each.latency_s)) * 1000 for each in (alone, beside)]
    figures(
        slow=len(ended), p50_ms=medians, p99_ms=(alone.p99_ms(), beside.p99_ms()),
        body=heard["body"][:40], head=heard["head"][:40],
    )  # fmt: skip
    assert len(ended) == each_way * len(starts)
    assert b" 408 " in heard["body"]
    assert b" 408 " in heard["chunked"]
    assert beside.lost == []
    assert set(beside.statuses) == {200}
    # Without clocks: what would be hurt by them would wait for seconds.
    assert medians[1] < 10 * medians[0] + 100
    assert ask(service.url, "/readyz")[0] == 200


@pytest.mark.parametrize(
    "start", [b"POST /predict HTTP/1.1\r\nX: ", b"GET /", b"POST /predict HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_a_head_without_end_takes_no_memory_and_ends(start: bytes, service: ServiceProcess) -> None:
    before = usage(service.process.pid)
    client = connect(service.url)
    client.sendall(start)
    sent = 0
    piece = b"A: b\r\n" * 10_000 if start.endswith(b"\n") else b"a" * 60_000
    try:
        while sent < 100_000_000:
            client.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    assert sent < 20_000_000  # buffers of the system included
    assert usage(service.process.pid).rss_mb < before.rss_mb + 30
    assert ask(service.url, "/readyz")[0] == 200


def test_a_connection_goes_on_after_a_refusal_once_the_rest_of_the_body_has_come(service: ServiceProcess) -> None:
    kept = connect(service.url)
    kept.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1234")
    assert kept.recv(4096).startswith(b"HTTP/1.1 404 ")
    kept.sendall(b"56789" + b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert kept.recv(4096).startswith(b"HTTP/1.1 200 ")
    kept.close()


def test_more_connections_than_open_files_are_allowed_pass_by(serve: Serve, picture: bytes) -> None:
    service = serve()
    process = psutil.Process(service.process.pid)
    if not hasattr(process, "rlimit"):
        pytest.skip("limits of another process can be set on Linux alone")
    process.rlimit(psutil.RLIMIT_NOFILE, (64, 64))
    crowd = [connect(service.url) for _ in range(200)]
    for client in crowd:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n")  # not all of it
    time.sleep(0.5)
    for client in crowd:
        client.close()

    def answered() -> bool:
        try:
            return bool(ask(service.url, "/predict", picture)[0] == 200)
        except OSError:
            return False

    eventually(answered)
    assert service.process.poll() is None
    assert service.stop() == 0


def test_uploads_that_stop_short_of_their_end_take_no_more_memory_than_is_set_aside(
    service: ServiceProcess, picture: bytes
) -> None:
    before = usage(service.process.pid).rss_mb
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n\xff\xd8\xff"
    body = bytes(4_900_000)
    answers: list[bytes] = []

    def send(_: int) -> None:
        client = connect(service.url)
        try:
            client.sendall(head + body)
            answers.append(client.recv(4096))
        except ConnectionError:
            answers.append(b"")
        client.close()

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(send, range(40)))
    peak = 0.0
    for line in Path(f"/proc/{service.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            peak = float(line.split()[1]) / 1e3
    statuses = Counter(answer[9:12].decode() for answer in answers)
    figures(before_mb=before, peak_mb=peak, statuses=statuses)
    assert statuses.keys() <= {"408", "503", ""}
    assert statuses["503"] > 0
    assert peak < before + 50 * 3
    eventually(lambda: sample(service.url, "lensmith_requests_in_flight") == 1)
    assert ask(service.url, "/predict", picture)[0] == 200


@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_requests(serve: Serve, predict: bytes) -> None:
    requests = sized(5000, 200_000)
    service = serve()
    held = []
    with Load(service.url, predict) as clients:
        for tenth in range(1, 11):
            clients.until(requests * tenth // 10, timeout_s=1800)
            held.append(usage(service.process.pid))
        outcome = clients.stop()
    figures(answered=outcome.answered, rss_mb=[each.rss_mb for each in held], p99_ms=outcome.p99_ms())
    assert outcome.lost == []
    assert set(outcome.statuses) == {200}
    warm = held[1]
    assert held[-1].rss_mb < warm.rss_mb * 1.05
    assert held[-1].files <= warm.files + 1
    assert held[-1].threads == warm.threads
