"""`lensmith review`: from a source to a page in the browser, until Ctrl-C writes the manifest."""

import getpass
import os
import secrets
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from lensmith.config import ReviewSettings
from lensmith.core.labels import canonical_label
from lensmith.core.machine import is_loopback
from lensmith.curation.reviewing import journal as journals
from lensmith.curation.reviewing import outcome
from lensmith.curation.reviewing.access import page_address
from lensmith.curation.reviewing.app import ReviewApp
from lensmith.curation.reviewing.items import ReviewSource
from lensmith.curation.reviewing.outcome import ReviewResult
from lensmith.curation.reviewing.session import Session, astray_notes, require_same_data, standing
from lensmith.curation.reviewing.sources import open_source
from lensmith.curation.reviewing.suggestions import Suggester
from lensmith.errors import OutputError, ServiceError

WRITE_S = 2.0
"""Seconds after which the manifest follows a decision."""


def review(
    settings: ReviewSettings, announce: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
) -> ReviewResult:
    """Serve the page until it is stopped, then write the manifest.

    Args:
        settings: source, output and address.
        announce: called with lines for people, such as the page's address.

    Raises:
        DataError: a source that cannot be reviewed, or a journal about other data.
        OutputError: a journal that is in use, or an output that is something else.
        ServiceError: the address is taken.
        BundleError: the bundle cannot be used.
    """
    path = outcome.journal_of(settings.out)
    _require_output(settings, path)
    source = open_source(settings.source, settings.classes or (), settings.ignore_labels)
    if settings.write:
        decisions = journals.read(path)
        found = standing(source, decisions)
        require_same_data(source, found, path)
        written = outcome.write(source, found.decided, decisions, settings.out)
        notes = (*source.notes, *astray_notes(found))
        for note in notes:
            announce(note)
        return outcome.result(source, found.decided, settings.out, written, notes)
    if path.exists():  # before anything is changed
        require_same_data(source, standing(source, journals.read(path)), path)
    suggester = Suggester(source, settings.bundle) if settings.bundle else None
    if suggester is not None and settings.classes is None:
        source = source.with_labels_of(suggester.labels)
    with _listener(settings.host, settings.port) as listener, _opened(path, source) as journal:
        found = standing(source, journal.decisions)
        session = Session(source, journal, found, closed=settings.classes is not None)
        notes = (*source.notes, *astray_notes(found))
        with _manifest_writer(session, settings.out) as writer:
            _serve(settings, session, suggester, listener, writer.wake, announce, notes)
        return outcome.result(source, session.decided, settings.out, writer.written, notes)


@contextmanager
def _opened(path: Path, source: ReviewSource) -> Iterator[journals.Journal]:
    """The journal, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with journals.opened(path, source) as journal:
        yield journal


def _has_browser() -> bool:
    """Whether somebody sits at a terminal of a desktop: elsewhere a text browser would take the terminal over."""
    is_desktop = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return is_desktop and sys.stdout is not None and sys.stdout.isatty()


def _require_output(settings: ReviewSettings, journal: Path) -> None:
    """Refuse to write over anything that is not the result of a review.

    Raises:
        OutputError: the output is a folder, the source, or a file without a journal; or --write has no journal.
    """
    out = settings.out
    arrived = None
    if out.is_dir():
        arrived = f"{out} is a folder."
    elif out.suffix.lower() != ".csv":
        arrived = f"{out} does not end in .csv."
    elif out.exists() and settings.source.exists() and out.samefile(settings.source):
        arrived = f"{out} is what is reviewed."
    elif out.exists() and not journal.exists():
        arrived = f"{out} is there, and is not the result of a review: it has no {journal.name} beside it."
    elif settings.write and not journal.exists():
        raise OutputError(
            f"The journal of a review was expected at {journal}.",
            "Nothing is there.",
            "Name the file of the review with --out, or leave --write out to begin one.",
        )
    if arrived is not None:
        raise OutputError("A new CSV, or that of an earlier review, was expected for --out.", arrived, "Name another.")


def _serve(
    settings: ReviewSettings,
    session: Session,
    suggester: Suggester | None,
    listener: socket.socket,
    on_decision: Callable[[], None],
    announce: Callable[[str], None],
    notes: tuple[str, ...],
) -> None:
    """Answer requests until Ctrl-C or SIGTERM."""
    is_shared = not is_loopback(settings.host)
    token = secrets.token_urlsafe(24) if is_shared else None
    reviewer = canonical_label(settings.reviewer or ("" if is_shared else _login_name()))
    app = ReviewApp(session, suggester, reviewer, settings.out, on_decision, settings.reviewer is not None).application(
        token
    )
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, lifespan="off",
                            server_header=False)  # fmt: skip
    server = _Server(config)
    host, port = listener.getsockname()[:2]
    address = page_address(_outer_address() if host in ("0.0.0.0", "::") else host, port, token)
    for note in notes:
        announce(note)
    announce(f"Reviewing {session.source.title}, {len(session.source.items):,} pictures: {address}")
    announce(f"{session.summary()}. Every decision is saved at once; Ctrl-C ends.")
    if settings.open and _has_browser():
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    if suggester is not None:
        suggester.start()
    try:
        server.run(sockets=[listener])
    except (KeyboardInterrupt, SystemExit):  # how the command line is told to stop
        pass
    finally:
        if suggester is not None:
            suggester.stop()


class _Server(uvicorn.Server):
    """A server that ends on SIGINT and SIGTERM, and does not raise them again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs; outside the main thread, where tests run it, nothing is done."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class _ManifestWriter:
    """Writes the manifest some seconds after decisions, so that a program that reads it never waits for the end.

    Attributes:
        written: lines of the manifest that was written last.
    """

    def __init__(self, session: Session, out: Path) -> None:
        self.written = 0
        self._session = session
        self._out = out
        self._woken = threading.Event()
        self._stopped = threading.Event()

    def wake(self) -> None:
        """Write soon."""
        self._woken.set()

    def stop(self) -> None:
        """Write no more."""
        self._stopped.set()
        self._woken.set()

    def work(self) -> None:
        """Write after decisions until `stop`, at most every WRITE_S seconds and a twentieth of the time."""
        while True:
            self._woken.wait()
            pause = WRITE_S
            while not self._stopped.wait(pause):
                self._woken.clear()
                started = time.monotonic()
                with suppress(OSError):  # the journal has everything, and the end reports it
                    self.write(sync=False)
                pause = max(WRITE_S, 20 * (time.monotonic() - started))
                self._woken.wait()
            return

    def write(self, sync: bool = True) -> None:
        """Write the manifest as it is now."""
        decided = {position: dict(by) for position, by in list(self._session.decided.items())}
        self.written = outcome.write(
            self._session.source, decided, list(self._session.journal.decisions), self._out, sync
        )


@contextmanager
def _manifest_writer(session: Session, out: Path) -> Iterator[_ManifestWriter]:
    """A writer at work in a thread; at the end the manifest is written once more."""
    writer = _ManifestWriter(session, out)
    writer.write()  # a folder that cannot be written to is reported now, and a killed review is caught up
    thread = threading.Thread(target=writer.work, name="manifest", daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        writer.stop()
        thread.join()
        writer.write()


def _listener(host: str, port: int) -> socket.socket:
    """A socket bound to an address.

    Raises:
        ServiceError: the address is taken or not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _no_address(host, port, error) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError as error:
        made.close()
        raise _no_address(host, port, error) from error
    return made


def _outer_address() -> str:
    """The address under which other machines of the network reach this one, as well as that can be known."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: the system chooses the address that it would send from
        return str(probe.getsockname()[0])
    return socket.gethostname()


def _no_address(host: str, port: int, error: OSError) -> ServiceError:
    return ServiceError(
        f"A free address was expected at {host}, port {port}.",
        f"The system said: {error.strerror or error}.",
        "Another review may be running there; use --port 0 to take a free one.",
    )


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return "reviewer"
