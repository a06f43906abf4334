"""The process that follows the registry for one service, and takes part in deciding how a canary release ends.

    echo '{"name": "flowers", "which": "champion", "folder": …, …}' | python -m lensmith.rollout.registry_sidecar

Each replica has one. Each reads what all replicas have counted, judges it, and writes down what it decides; the
registry keeps the first decision, so it does not matter who is quicker, or who is left. What to follow is a line of
JSON on standard input (an address may hold a password, and a command line is for all to read); it ends when that
closes. On standard output it says one line: that there is something to serve, or why not.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmith.core.files import atomic_write
from lensmith.core.machine import cache_dir
from lensmith.errors import LensmithError, MissingPackageError, OutputError, RegistryUnreachableError
from lensmith.registry.client import client, uri
from lensmith.registry.models import Version, resolve
from lensmith.registry.pull import pull
from lensmith.registry.references import CHAMPION, ModelReference
from lensmith.rollout.guards import Assessment, RolloutGuards
from lensmith.rollout.ledger import Ledger, LedgerEntry
from lensmith.rollout.report import RolloutReport
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.rollout.state import CanaryRelease, Decision, DesiredState, now

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOOK_S = 0.2
"""Seconds between two looks into the channel, for what cannot wait until the registry is asked again."""
POLITE = 5
"""Niceness: what is served goes first."""


class RegistrySidecar:
    """Keeps the channel true.

    Args:
        name: what is followed.
        channel: of the service.
        address: of the registry.
    """

    def __init__(self, name: ModelReference, channel: SidecarChannel, address: str) -> None:
        self._name = name
        self._channel = channel
        self._address = address
        self._connected: MlflowClient | None = None
        # The same for one that takes the place of another: it hands in the same counts.
        its = hashlib.sha256(str(channel.folder).encode()).hexdigest()[:8]
        self._replica = f"{socket.gethostname()[:40]}-{its}"
        key = hashlib.sha256(f"{address} {name}".encode()).hexdigest()[:16]
        self._remembered = cache_dir() / "registry" / "followed" / f"{key}.json"
        self._known: DesiredState | None = None
        self._kept: DesiredState | None = None
        self._guard: RolloutGuards | None = None
        self._others: list[RolloutReport] = []
        self._pending: tuple[str, Decision] | None = None
        self._named = ""
        self._applied = self._failed = False
        self._trouble = ""

    def begin(self) -> None:
        """Find out what to serve, from the registry, or as it was known last where that does not answer.

        Raises:
            RegistryError, BundleError: nothing to serve.
        """
        try:
            self._ask()
        except RegistryUnreachableError:
            try:
                known = DesiredState.model_validate_json(self._remembered.read_bytes())
            except (OSError, ValueError):  # nothing is known, or not any more
                known = None
            if known is None:
                raise
            self._known, self._named = known, known.version
            self._offline()

    def turn(self) -> None:
        """Look into the registry once, and tell the service what is new."""
        self._applied = self._failed = False
        try:
            self._ask()
            return
        except RegistryUnreachableError as error:
            self._complain(str(error))
            self._offline()
        except LensmithError as error:  # such as an alias that is gone: what is served goes on
            self._complain(str(error))
        except Exception as error:  # of a library, or of what somebody wrote into the registry
            self._complain(f"The registry could not be read ({type(error).__name__}: {error}).")
        self._failed = True

    @property
    def urgent(self) -> bool:
        """Whether to look at once: an alias was moved from here, or a challenger is to be taken back.

        Not after a look that failed, which would fail again at once.
        """
        known = self._known
        if self._applied:
            return True
        if self._failed or known is None or known.rollout is None or known.decision is not None:
            return False
        return RolloutReport.merge(known.rollout.id, self._channel.read_reports()).stop is not None

    @property
    def _client(self) -> MlflowClient:
        assert self._connected is not None  # by `_ask`, which comes first
        return self._connected

    def _ask(self) -> None:
        """As the registry says."""
        self._connected = self._connected or client(self._address, create=False)
        ledger, state = self._ledger()  # before the alias, which moves after what stands there
        version = resolve(self._client, self._name)
        self._named = version.version
        known = self._describe(version, state)
        if ledger is not None and state is not None:
            try:
                known = self._decide(ledger, state, known)
            except RegistryUnreachableError:
                raise
            except LensmithError as error:  # such as rights to read alone: what the alias names is served all the same
                self._complain(str(error))
                self._failed = True
        self._tell(known)

    def _ledger(self) -> tuple[Ledger | None, LedgerEntry | None]:
        """The ledger and its latest entry; None where it cannot be read, which the alias does not need."""
        if self._name.which != CHAMPION:
            return None, None
        try:
            ledger = Ledger.open(self._client, self._name.name, create=False)
            return ledger, ledger.latest() if ledger else None
        except RegistryUnreachableError:
            raise
        except LensmithError as error:
            self._complain(str(error))
            self._failed = True
            return None, None

    def _describe(self, version: Version, state: LedgerEntry | None) -> DesiredState:
        before = self._known
        try:
            path, served = pull(self._client, version), version.version
        except RegistryUnreachableError:
            raise
        except LensmithError as error:
            if before is None:
                raise
            self._complain(f"{error} Version {before.version} goes on.")
            path, served = before.path, before.version
        known = DesiredState(name=self._name.name, alias=self._name.which, version=served, path=path)
        if state is None:
            return known
        update: dict[str, Any] = {"rollout": state.rollout, "decision": state.decision}
        if state.decision is None:
            update["challenger_path"], update["trouble"] = self._challenger(state.rollout)
        return known.model_copy(update=update)

    def _challenger(self, rollout: CanaryRelease) -> tuple[Path | None, str]:
        """Where its bundle lies, or why it cannot be had."""
        try:
            return pull(self._client, resolve(self._client, ModelReference(rollout.name, rollout.challenger))), ""
        except RegistryUnreachableError:
            raise
        except LensmithError as error:
            return None, str(error)

    def _decide(self, ledger: Ledger, state: LedgerEntry, known: DesiredState) -> DesiredState:
        """Hand in what was counted here, judge what all have counted, and see that a decision takes effect."""
        rollout, decision = state.rollout, state.decision
        if decision is None:
            own = RolloutReport.merge(rollout.id, self._channel.read_reports())
            ledger.report(state.n, self._replica, {**own.as_dict(), "at": now().isoformat()})
            self._others = self._read(state)
            wanted, verdict = self._judge(rollout, own, known)
            known = known.model_copy(update={"comparison": verdict.figures})
            wanted = self._pending_for(rollout) or wanted
            if wanted is None:
                return known
            decision = ledger.decide(state.n, wanted)
        self._pending = None
        if not state.applied:
            ledger.apply(state)
            self._applied = True
        return known.model_copy(update={"decision": decision, "comparison": known.comparison or decision.figures})

    def _pending_for(self, rollout: CanaryRelease) -> Decision | None:
        """What was decided of this release while the registry was away."""
        return self._pending[1] if self._pending is not None and self._pending[0] == rollout.id else None

    def _read(self, state: LedgerEntry) -> list[RolloutReport]:
        """What the other replicas have counted; a garbled report must not keep a challenger from going back."""
        found = []
        for replica, report in state.reports.items():
            try:
                if replica != self._replica:
                    found.append(RolloutReport.from_dict(report))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._complain(f"The report of {replica} cannot be read and is left out ({error!r}).")
        return found

    def _judge(
        self, rollout: CanaryRelease, own: RolloutReport, known: DesiredState
    ) -> tuple[Decision | None, Assessment]:
        """How the release should end by what is known; None: it goes on."""
        if self._guard is None or self._guard.rollout.id != rollout.id:
            self._guard = RolloutGuards(rollout)
        total = RolloutReport.merge(rollout.id, [own, *self._others])
        verdict = self._guard.look(total.champion, total.challenger)
        outcome, guard, reason = None, verdict.guard, verdict.reason
        if total.stop is not None:
            outcome, guard, reason = "rolled_back", total.stop.guard, total.stop.reason
        elif known.trouble:
            outcome, guard, reason = "rolled_back", "load", known.trouble
        elif self._named != rollout.champion:
            outcome, guard = "aborted", "champion"
            reason = f"the champion changed from version {rollout.champion} to {self._named} meanwhile"
        elif verdict.action != "hold":
            outcome = "promoted" if verdict.action == "promote" else "rolled_back"
        if outcome is None:
            return None, verdict
        decision = Decision.model_validate(
            {"outcome": outcome, "guard": guard, "reason": reason, "by": self._replica, "figures": verdict.figures}
        )
        return decision, verdict

    def _offline(self) -> None:
        """Go on with what is known; a challenger that fails is still taken back, and the registry told later."""
        known = self._known
        assert known is not None
        known = known.model_copy(update={"reachable": False})
        rollout = known.rollout
        if rollout is not None and known.decision is None:
            decision, verdict = self._judge(
                rollout, RolloutReport.merge(rollout.id, self._channel.read_reports()), known
            )
            if decision is not None and decision.outcome == "rolled_back" and self._pending_for(rollout) is None:
                self._pending = rollout.id, decision
            known = known.model_copy(update={"decision": self._pending_for(rollout), "comparison": verdict.figures})
        self._tell(known)

    def _tell(self, known: DesiredState) -> None:
        """Put it into the channel where it is news, and remember it for a start without a registry."""
        self._known = known
        if not _same(known, self._channel.desired_state()):
            self._channel.write_desired_state(known)
        kept = known.model_copy(update={"comparison": {}})
        if known.reachable and not _same(kept, self._kept):
            self._kept = kept
            with suppress(OSError):  # a full disk, or a cache that is only read
                self._remembered.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self._remembered, kept.model_dump_json())

    def _complain(self, trouble: str) -> None:
        """Say it once for each time that it begins."""
        if trouble != self._trouble:
            print(f"lensmith: {trouble}", file=sys.stderr, flush=True)
        self._trouble = trouble


def _same(known: DesiredState, before: DesiredState | None) -> bool:
    """Whether it says the same, whenever it was read."""
    return before is not None and known.model_copy(update={"read_at": before.read_at}) == before


def main() -> None:
    """See the module."""
    wanted: dict[str, Any] = json.loads(sys.stdin.readline())
    os.nice(POLITE)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    name = ModelReference(wanted["name"], wanted["which"])
    try:
        sidecar = RegistrySidecar(name, SidecarChannel(Path(wanted["folder"])), uri(wanted["tracking_uri"]))
        sidecar.begin()
    except (LensmithError, ModuleNotFoundError, OSError) as found:
        error = _in_plain_words(found)
        print(json.dumps({"error": type(error).__name__, "said": [error.expected, error.arrived, error.remedy]}))
        return
    print(json.dumps({"ready": True}), flush=True)
    if wanted["once"]:
        return
    while True:
        due = time.monotonic() + wanted["poll_s"]
        while time.monotonic() < due and not sidecar.urgent:
            time.sleep(LOOK_S)
        sidecar.turn()


def _in_plain_words(found: LensmithError | ModuleNotFoundError | OSError) -> LensmithError:
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
