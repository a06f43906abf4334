"""What the service stands on goes away and comes back: Redis, the disk."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.faults import Load, Serve, ask, eventually, figures, sized, usage
from fixtures.redis_server import RedisServer
from lensmith.serving.child_process import ServiceProcess

pytestmark = pytest.mark.slow


def test_quotas_go_on_alone_without_redis_and_together_once_it_is_back(
    redis_server: RedisServer, serve: Serve, picture: bytes
) -> None:
    one, two = (serve(quota="40/hour", quota_store=redis_server.url, threads=1) for _ in range(2))

    def sent(service: ServiceProcess, count: int) -> list[int]:
        return [ask(service.url, "/predict", picture)[0] for _ in range(count)]

    assert sent(one, 25) == [200] * 25
    assert sent(two, 16) == [200] * 15 + [429]  # counted together
    redis_server.kill()
    # Each goes on from what it has let in itself: nobody begins anew, and nobody is refused for want of Redis.
    assert sent(one, 16) == [200] * 15 + [429]
    assert sent(two, 26) == [200] * 25 + [429]
    redis_server.start()  # and has forgotten everything
    for service in (one, two):
        eventually(lambda service=service: sent(service, 1) == [200])
    assert sent(one, 39) == [200] * 38 + [429]
    assert sent(two, 1) == [429]


def test_requests_are_answered_in_time_while_redis_is_away(
    redis_server: RedisServer, serve: Serve, predict: bytes
) -> None:
    service = serve(quota="1000000/hour", quota_store=redis_server.url)
    ways = {
        "hanging": (
            lambda: redis_server.process.send_signal(signal.SIGSTOP),
            lambda: redis_server.process.send_signal(signal.SIGCONT),
        ),
        "killed": (redis_server.kill, redis_server.start),
    }
    for away, (leave, come_back) in ways.items():
        with Load(service.url, predict, clients=4) as clients:
            clients.until(sized(500, 5000))
            with_redis = list(clients.outcome.latency_s)
            leave()
            clients.until(clients.outcome.answered + sized(1000, 10_000))
            without = clients.outcome.latency_s[len(with_redis) :]
            come_back()
            clients.until(clients.outcome.answered + sized(500, 5000))
            outcome = clients.stop()
        p50, p50_without = (1000 * sorted(each)[len(each) // 2] for each in (with_redis, without))
        figures(away=away, answered=outcome.answered, lost=outcome.lost, p50_ms=(p50, p50_without))
        assert outcome.lost == []
        assert set(outcome.statuses) == {200}
        assert p50_without < 2 * p50 + 20  # who waited for Redis each time would take 50 ms longer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte; only root may have one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = os.getuid() == 0 and subprocess.run(mounting, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_log_lines_and_nothing_else(
    small_disk: Path, serve: Serve, predict: bytes, picture: bytes
) -> None:
    log, filler = small_disk / "log", small_disk / "filler"
    service = serve(log_file=log, log_requests=True, log_format="json")
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    with Load(service.url, predict, clients=4, most=sized(1500, 20_000)) as clients:
        outcome = clients.wait()
    held = log.stat().st_size
    figures(answered=outcome.answered, log_bytes=held)
    assert outcome.lost == []
    assert set(outcome.statuses) == {200}
    filler.unlink()
    ask(service.url, "/predict", picture, "X-Request-ID: after-the-flood")
    eventually(lambda: b"after-the-flood" in log.read_bytes())
    assert service.stop() == 0


def test_a_log_that_can_never_be_written_takes_no_memory(serve: Serve, predict: bytes) -> None:
    service = serve(log_file="/dev/full", log_requests=True)
    with Load(service.url, predict, clients=4) as clients:
        clients.until(sized(500, 5000))
        before = usage(service.process.pid)
        clients.until(sized(2000, 25_000))
        outcome = clients.stop()
    after = usage(service.process.pid)
    figures(answered=outcome.answered, before=before, after=after)
    assert outcome.lost == []
    assert set(outcome.statuses) == {200}
    assert after.rss_mb < before.rss_mb * 1.05 + 2
    assert service.stop() == 0
