"""Registry sidecar: the process that polls the registry for one service, and takes part in ending canary releases.

    echo '{"name": "flowers", "which": "champion", "folder": …, …}' | python -m lensmith.rollout.registry_sidecar

Each replica has one. Each reads what all replicas have counted, assesses it and writes its decision to the ledger; the
ledger keeps the first decision, so it does not matter which sidecar is faster or which ones are alive. The request is
one line of JSON on standard input (an address may hold a password, and everybody can read a command line); the process
ends when that input closes. It answers with one line on standard output: ready, or why there is nothing to serve.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmith.core.machine import cache_dir
from lensmith.errors import LensmithError, MissingPackageError, OutputError, RegistryUnreachableError
from lensmith.registry.client import client, require_present, uri
from lensmith.registry.models import resolve
from lensmith.registry.references import CHAMPION, ModelReference
from lensmith.rollout.decider import RolloutDecider
from lensmith.rollout.desired_state import DesiredStateWriter, pull_desired_state
from lensmith.rollout.ledger import Ledger
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.rollout.state import DesiredState

if TYPE_CHECKING:
    from mlflow import MlflowClient

URGENT_POLL_S = 0.2
"""Seconds between two reads of the channel, for what cannot wait until the next poll of the registry."""
NICENESS = 5
"""Scheduling priority below the processes that answer requests."""


class RegistrySidecar:
    """Polls the registry at `address`, a tracking URI, and writes changes to the sidecar channel."""

    def __init__(self, reference: ModelReference, channel: SidecarChannel, address: str) -> None:
        # Derived from the folder, so that a sidecar that replaces another reports the same counts, not further ones.
        folder_key = hashlib.sha256(str(channel.folder).encode()).hexdigest()[:8]
        self._reference = reference
        self._address = address
        self._client: MlflowClient | None = None
        self._decider = RolloutDecider(channel, f"{socket.gethostname()[:40]}-{folder_key}", self._warn)
        self._writer = DesiredStateWriter(channel, reference, address)
        self._channel = channel
        self._named = self._problem = ""
        self._applied = self._failed = False
        self._last_warning = ""

    def begin(self) -> None:
        """Find out what to serve: from the registry, or from the last run where the registry cannot be followed.

        Raises:
            RegistryError, BundleError: there is nothing to serve.
        """
        try:
            self._follow_registry()
        except ModuleNotFoundError:  # no fault of the registry
            raise
        except Exception as error:
            if (state := self._writer.restore()) is None:
                raise
            self._named = state.version
            self._continue(state, error)
        self._channel.note_poll()

    def poll(self) -> None:
        """Poll the registry once, and publish what has changed; what is served stays where that fails."""
        self._applied = self._failed = False
        try:
            self._follow_registry()
        except Exception as error:
            self._failed = True
            assert self._writer.latest is not None  # since `begin`
            try:
                self._continue(self._writer.latest, error)
            except OSError as full:  # the channel cannot be written: the service sees that no poll is noted
                self._warn(f"What the registry says cannot be published: {full}.")
                return
        with suppress(OSError):
            self._channel.note_poll()

    def publish_again(self) -> None:
        """Put the channel's files back where others removed them."""
        with suppress(OSError):
            self._writer.publish_again()

    @property
    def is_urgent(self) -> bool:
        """Whether to poll at once: this sidecar moved an alias, or a challenger is to be rolled back.

        Never after a poll that failed, since the next would also fail at once.
        """
        state = self._writer.latest
        if self._applied:
            return True
        if self._failed or state is None or state.rollout is None or state.decision is not None:
            return False
        return self._decider.own_report(state.rollout).stop is not None

    def _follow_registry(self) -> None:
        require_present(self._address)
        registry = self._client = self._client or client(self._address, create=False)
        self._problem = ""
        ledger = entry = None
        with self._serve_anyway():
            if self._reference.which == CHAMPION:
                ledger = Ledger.find(registry, self._reference.name)
            if ledger is not None:
                entry = ledger.latest()  # before the alias, which is moved after it
        version = resolve(registry, self._reference)
        self._named = version.version
        alias, before = self._reference.which, self._writer.latest
        state = pull_desired_state(registry, version, alias, entry, before)
        if ledger is not None and entry is not None:
            with self._serve_anyway():
                state, self._applied = self._decider.decide(ledger, entry, state, self._named)
        self._writer.write(state.model_copy(update={"problem": state.problem or self._problem}))

    @contextmanager
    def _serve_anyway(self) -> Iterator[None]:
        """Publish as a problem that a ledger cannot be read or written, such as by an account without the rights."""
        try:
            yield
        except RegistryUnreachableError:
            raise
        except LensmithError as error:
            self._problem = str(error)
            self._failed = True

    def _continue(self, state: DesiredState, error: Exception) -> None:
        """Serve the last state, with an error of the registry as its problem.

        Where the registry does not answer, a challenger that fails is rolled back, and the ledger is updated later.
        """
        is_offline = isinstance(error, RegistryUnreachableError)
        # Another exception is a library's, or about what somebody wrote into the registry.
        unexpected = f"The registry could not be read ({type(error).__name__}: {error})."
        problem = str(error) if isinstance(error, LensmithError) else unexpected
        state = state.model_copy(update={"reachable": not is_offline, "problem": problem})
        self._writer.write(self._decider.decide_offline(state, self._named) if is_offline else state)

    def _warn(self, warning: str) -> None:
        """Print a warning unless it was also the last one."""
        if warning != self._last_warning:
            print(f"lensmith: {warning}", file=sys.stderr, flush=True)
        self._last_warning = warning


def main() -> None:
    """Answer the request on standard input, then poll until it closes."""
    request: dict[str, Any] = json.loads(sys.stdin.readline())
    os.nice(NICENESS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    reference = ModelReference(request["name"], request["which"])
    try:
        sidecar = RegistrySidecar(reference, SidecarChannel(Path(request["folder"])), uri(request["tracking_uri"]))
        sidecar.begin()
    except (LensmithError, ModuleNotFoundError, OSError) as found:
        error = _as_lensmith_error(found)
        print(json.dumps({"error": type(error).__name__, "arguments": [error.expected, error.arrived, error.remedy]}))
        return
    print(json.dumps({"ready": True}), flush=True)
    while not request["once"]:
        due = time.monotonic() + request["poll_s"]
        while time.monotonic() < due and not sidecar.is_urgent:
            time.sleep(URGENT_POLL_S)
            sidecar.publish_again()
        sidecar.poll()


def _as_lensmith_error(found: LensmithError | ModuleNotFoundError | OSError) -> LensmithError:
    if isinstance(found, LensmithError):
        return found
    if isinstance(found, ModuleNotFoundError):
        return MissingPackageError.of(found)
    return OutputError(
        f"Room to read and write was expected at {found.filename or cache_dir()}.",
        f"The system said: {found.strerror}.",
        "Free some space, or name another cache with LENSMITH_CACHE.",
    )


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
