"""Signals at every moment: none ends a service that should run, and none is lost."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.faults import TOKEN, Connection, ask, eventually, post, workers_of
from fixtures.tokens import hs256, token
from lensmith.bundle.format import Bundle
from lensmith.core.stop_handler import StopHandler
from lensmith.serving.child_process import ServiceProcess, start_service
from lensmith.serving.server.signals import EarlySignals, SignalInbox

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "lensmith", "serve"]
OLD, NEW = "an old secret of forty characters, or so", "a new secret of forty characters, or so"


class Start:
    """A service that was started and is not waited for."""

    def __init__(self, bundle: Path, *flags: str, **more: Any) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*COMMAND, str(bundle), "--port", "0", *flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
        )  # fmt: skip

    def url(self) -> str:
        """The address, once it is ready; empty if it ended before."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rpartition(" ")[2].strip()

    def end(self) -> tuple[int, str]:
        """Exit code and messages."""
        _, messages = self.process.communicate(timeout=60)
        return self.process.returncode, messages


@pytest.fixture
def live(remake: Callable[..., Bundle]) -> Path:
    """A bundle of version 1, to be replaced."""
    return remake("live", version="1").path


@pytest.fixture
def deploy(remake: Callable[..., Bundle], live: Path) -> Callable[[str], None]:
    """`deploy("2")`: version 2 in the place of what is live, which is gone."""

    def replace(version: str) -> None:
        other = remake(f"version-{version}", version=version).path
        shutil.rmtree(live)
        other.rename(live)

    return replace


def version(url: str) -> str:
    return str(json.loads(ask(url, "/model")[2])["version"])


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "two"])
def test_no_signal_but_a_stop_ends_a_service_that_starts(flags: tuple[str, ...], live: Path) -> None:
    first = Start(live, *flags)
    assert first.url()
    took = time.monotonic() - first.began
    first.process.terminate()
    assert first.end()[0] == 0
    numbers = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
    start = Start(live, *flags)
    time.sleep(max(0.3, 0.2 * took))  # the interpreter and the command line are there; the verb is not
    start.process.send_signal(signal.SIGHUP)
    while time.monotonic() < start.began + 0.5 * took:
        time.sleep(0.01)
    for number in numbers:
        start.process.send_signal(number)
    url = start.url()
    assert url, start.end()
    for number in numbers:
        start.process.send_signal(number)
    assert ask(url, "/livez")[0] == 200
    start.process.terminate()
    assert start.end()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "two"])
def test_a_stop_during_the_start_ends_it_without_a_fault(flags: tuple[str, ...], number: int, live: Path) -> None:
    for share in (0.4, 1.0):
        start = Start(live, *flags, start_new_session=True)
        time.sleep(share)
        os.killpg(start.process.pid, number)  # as a terminal and systemd do, to every process
        code, messages = start.end()
        # Python ends itself by SIGINT where that interrupted code which a library ran by itself; shells say 130 then.
        assert code in (0, 130, 143, -signal.SIGINT), messages
        assert "Traceback" not in messages
        assert "fault" not in messages


def test_a_reload_that_is_asked_for_during_the_start_happens(live: Path, deploy: Callable[[str], None]) -> None:
    start = Start(live, env={**os.environ, "LENSMITH_SERVE_BATCHING": "auto"})
    time.sleep(0.3)
    deploy("2")
    start.process.send_signal(signal.SIGHUP)
    url = start.url()
    eventually(lambda: version(url) == "2")
    start.process.terminate()
    assert start.end()[0] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_during_a_reload_is_not_lost(
    workers: int, live: Path, deploy: Callable[[str], None], red_png: bytes
) -> None:
    with start_service(live, workers=workers, threads=1, deadline_ms=20_000) as service:
        for number in ("2", "3", "4"):
            deploy(number)
            service.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        eventually(lambda: {version(service.url) for _ in range(8)} == {"4"})


@pytest.fixture
def two_workers(live: Path, tmp_path: Path) -> Iterator[ServiceProcess]:
    (tmp_path / "secret").write_text(OLD)
    with start_service(
        live, workers=2, threads=1, deadline_ms=20_000, quota="none", jwt_secret_file=tmp_path / "secret"
    ) as service:
        yield service


def answers(service: ServiceProcess, image: bytes, secret: str) -> tuple[set[int], set[str]]:
    """Status codes and versions of answers to a caller, from both processes."""
    header = f"Authorization: Bearer {token(sign=lambda message: hs256(message, secret))}"
    request = post(image).replace(TOKEN.encode(), header.encode())
    found = []
    for _ in range(12):
        connection = Connection(service.url)
        found.append(connection.ask(request))
        connection.close()
    return {status for status, _, _ in found}, {
        json.loads(body)["model"]["version"] for status, _, body in found if status == 200
    }


def test_what_a_service_serves_and_whom_it_knows_changes_on_a_hangup_and_everywhere(
    two_workers: ServiceProcess, deploy: Callable[[str], None], tmp_path: Path, red_png: bytes
) -> None:
    deploy("2")
    dead = workers_of(two_workers)[0]
    dead.kill()
    eventually(lambda: len(workers_of(two_workers)) == 2 and dead not in workers_of(two_workers))
    until = time.monotonic() + 3  # in which its successor begins to answer
    while time.monotonic() < until:
        assert answers(two_workers, red_png, OLD) == ({200}, {"1"})

    (tmp_path / "secret").write_text(f"{OLD}\n{NEW}\n")
    two_workers.process.send_signal(signal.SIGHUP)
    eventually(lambda: answers(two_workers, red_png, NEW) == ({200}, {"2"}))
    assert answers(two_workers, red_png, OLD) == ({200}, {"2"})

    shutil.rmtree(tmp_path / "live")  # a reload of the model fails, and keys change all the same
    (tmp_path / "secret").write_text(NEW)
    two_workers.process.send_signal(signal.SIGHUP)
    eventually(lambda: answers(two_workers, red_png, OLD)[0] == {401})
    assert answers(two_workers, red_png, NEW) == ({200}, {"2"})


def test_children_are_waited_for_though_the_parent_of_all_ignores_their_ends(live: Path) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring, *COMMAND, str(live), "--port", "0", "--workers", "2"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.terminate()
        asked = time.monotonic()
        assert process.wait(30) == 0
        assert time.monotonic() < asked + 10  # and not after the grace period


def test_an_early_hangup_is_answered_once_and_an_early_stop_is_not_forgotten() -> None:
    early, before = EarlySignals(), signal.getsignal(signal.SIGTERM)
    with early.installed():
        early.require_no_stop()
        os.kill(os.getpid(), signal.SIGHUP)
        assert [early.take_hangup(), early.take_hangup()] == [True, False]
        with contextlib.suppress(SystemExit):  # as a library that is being imported may do
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            early.require_no_stop()
        assert ended.value.code == 143
    earlier = StopHandler()
    with contextlib.suppress(SystemExit):
        earlier(signal.SIGTERM, None)
    signal.signal(signal.SIGTERM, earlier)
    try:
        with pytest.raises(SystemExit), EarlySignals().installed():
            pytest.fail("the start goes on")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_whose_exception_was_lost_before_the_supervisor_listens_counts() -> None:
    with EarlySignals().installed():
        with contextlib.suppress(SystemExit):  # as Python does where it cleans up
            signal.raise_signal(signal.SIGTERM)
        inbox = SignalInbox()
        with inbox.installed():
            assert inbox.stops == 1
