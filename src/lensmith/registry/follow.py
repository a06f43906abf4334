"""The process that follows the registry for one service, and takes part in deciding how a gray release ends.

    echo '{"name": "flowers", "which": "champion", "folder": …, …}' | python -m lensmith.registry.follow

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
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmith.errors import LensmithError, MissingPackageError, RegistryUnreachableError
from lensmith.machine import cache_dir
from lensmith.registry.mailbox import Mailbox, write_whole
from lensmith.registry.models import Version, resolve
from lensmith.registry.names import CHAMPION, Name
from lensmith.registry.pull import pull
from lensmith.registry.rollouts import Ledger, State
from lensmith.registry.store import client, uri
from lensmith.rollout.guard import Guard, Verdict
from lensmith.rollout.report import Report
from lensmith.rollout.state import Decision, Known, Rollout, now

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOOK_S = 0.2
"""Seconds between two looks into the mailbox, for what cannot wait until the registry is asked again."""
POLITE = 5
"""Niceness: what is served goes first."""


class Follower:
    """Keeps the mailbox true.

    Args:
        name: what is followed.
        mailbox: of the service.
        address: of the registry.
    """

    def __init__(self, name: Name, mailbox: Mailbox, address: str) -> None:
        self._name = name
        self._mailbox = mailbox
        self._address = address
        self._connected: MlflowClient | None = None
        self._replica = f"{socket.gethostname()[:40]}-{uuid.uuid4().hex[:8]}"
        key = hashlib.sha256(f"{address} {name}".encode()).hexdigest()[:16]
        self._remembered = cache_dir() / "registry" / "followed" / f"{key}.json"
        self._known: Known | None = None
        self._kept: Known | None = None
        self._guard: Guard | None = None
        self._others: list[Report] = []
        self._pending: Decision | None = None
        self._applied = False
        self._trouble = ""

    def begin(self) -> None:
        """Find out what to serve, from the registry, or as it was known last where that does not answer.

        Raises:
            RegistryError, BundleError: nothing to serve.
        """
        try:
            self._ask()
        except RegistryUnreachableError:
            if not self._remembered.exists():
                raise
            self._known = Known.model_validate_json(self._remembered.read_bytes())
            self._offline()

    def turn(self) -> None:
        """Look into the registry once, and tell the service what is new."""
        self._applied = False
        try:
            self._ask()
        except RegistryUnreachableError as error:
            self._complain(str(error))
            self._offline()
        except LensmithError as error:  # such as an alias that is gone: what is served goes on
            self._complain(str(error))
        except Exception as error:  # of a library, or of what somebody wrote into the registry
            self._complain(f"The registry could not be read ({type(error).__name__}: {error}).")

    @property
    def urgent(self) -> bool:
        """Whether to look at once: what an alias names has changed here, or a challenger is to be taken back."""
        known = self._known
        if self._applied:
            return True
        if known is None or known.rollout is None or known.decision is not None or self._pending is not None:
            return False
        return Report.together(known.rollout.id, self._mailbox.reports()).stop is not None

    @property
    def _client(self) -> MlflowClient:
        assert self._connected is not None  # by `_ask`, which comes first
        return self._connected

    def _ask(self) -> None:
        """As the registry says."""
        self._connected = self._connected or client(self._address)
        version = resolve(self._client, self._name)
        ledger = Ledger.open(self._client, self._name.name, create=False) if self._name.which == CHAMPION else None
        state = ledger.latest() if ledger else None
        challenger, trouble = None, ""
        if state is not None and state.decision is None:
            challenger, trouble = self._challenger(state.rollout)
        known = self._describe(version, state, challenger, trouble)
        if ledger is not None and state is not None:
            known = self._decide(ledger, state, known)
        self._tell(known)

    def _describe(self, version: Version, state: State | None, challenger: Path | None, trouble: str) -> Known:
        before = self._known
        try:
            path = pull(self._client, version)
        except RegistryUnreachableError:
            raise
        except LensmithError as error:
            if before is None:
                raise
            self._complain(f"{error} Version {before.version} goes on.")
            version_now, path = before.version, before.path
        else:
            version_now = version.version
        return Known(
            name=self._name.name,
            alias=self._name.which,
            version=version_now,
            path=path,
            rollout=state.rollout if state else None,
            decision=state.decision if state else None,
            challenger_path=challenger,
            trouble=trouble,
        )

    def _challenger(self, rollout: Rollout) -> tuple[Path | None, str]:
        """Where its bundle lies, or why it cannot be had."""
        try:
            return pull(self._client, resolve(self._client, Name(rollout.name, rollout.challenger))), ""
        except RegistryUnreachableError:
            raise
        except LensmithError as error:
            return None, str(error)

    def _decide(self, ledger: Ledger, state: State, known: Known) -> Known:
        """Hand in what was counted here, judge what all have counted, and see that a decision takes effect."""
        rollout, decision = state.rollout, state.decision
        if decision is None:
            own = Report.together(rollout.id, self._mailbox.reports())
            ledger.report(state.n, self._replica, {**own.as_dict(), "at": now().isoformat()})
            self._others = self._read(state)
            wanted, verdict = self._judge(rollout, own, known)
            known = known.model_copy(update={"comparison": verdict.figures})
            wanted = self._pending or wanted
            if wanted is None:
                return known
            decision = ledger.decide(state.n, wanted)
        self._pending = None
        if not state.applied:
            ledger.apply(state)
            self._applied = True
        return known.model_copy(update={"decision": decision, "comparison": known.comparison or decision.figures})

    def _read(self, state: State) -> list[Report]:
        """What the other replicas have counted; a garbled report must not keep a challenger from going back."""
        found = []
        for replica, report in state.reports.items():
            try:
                if replica != self._replica:
                    found.append(Report.from_dict(report))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._complain(f"The report of {replica} cannot be read and is left out ({error!r}).")
        return found

    def _judge(self, rollout: Rollout, own: Report, known: Known) -> tuple[Decision | None, Verdict]:
        """How the release should end by what is known; None: it goes on."""
        if self._guard is None or self._guard.rollout.id != rollout.id:
            self._guard = Guard(rollout)
        total = Report.together(rollout.id, [own, *self._others])
        verdict = self._guard.look(total.champion, total.challenger)
        outcome, guard, reason = None, verdict.guard, verdict.reason
        if total.stop is not None:
            outcome, guard, reason = "rolled_back", total.stop.guard, total.stop.reason
        elif known.trouble:
            outcome, guard, reason = "rolled_back", "load", known.trouble
        elif known.version != rollout.champion:
            outcome, guard = "aborted", "champion"
            reason = f"the champion changed from version {rollout.champion} to {known.version} meanwhile"
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
            decision, verdict = self._judge(rollout, Report.together(rollout.id, self._mailbox.reports()), known)
            if decision is not None and decision.outcome == "rolled_back":
                self._pending = decision
            known = known.model_copy(update={"decision": self._pending, "comparison": verdict.figures})
        self._tell(known)

    def _tell(self, known: Known) -> None:
        """Put it into the mailbox where it is news, and remember it for a start without a registry."""
        self._known = known
        if not _same(known, self._mailbox.known()):
            self._mailbox.tell(known)
        kept = known.model_copy(update={"comparison": {}})
        if known.reachable and not _same(kept, self._kept):
            self._kept = kept
            self._remembered.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._remembered, kept.model_dump_json())

    def _complain(self, trouble: str) -> None:
        """Say it once for each time that it begins."""
        if trouble != self._trouble:
            print(f"lensmith: {trouble}", file=sys.stderr, flush=True)
        self._trouble = trouble


def _same(known: Known, before: Known | None) -> bool:
    """Whether it says the same, whenever it was read."""
    return before is not None and known.model_copy(update={"read_at": before.read_at}) == before


def main() -> None:
    """See the module."""
    wanted: dict[str, Any] = json.loads(sys.stdin.readline())
    os.nice(POLITE)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    name = Name(wanted["name"], wanted["which"])
    try:
        follower = Follower(name, Mailbox(Path(wanted["folder"])), uri(wanted["tracking_uri"]))
        follower.begin()
    except (LensmithError, ModuleNotFoundError) as found:
        error = found if isinstance(found, LensmithError) else MissingPackageError.of(found)
        print(json.dumps({"error": type(error).__name__, "said": [error.expected, error.arrived, error.remedy]}))
        return
    print(json.dumps({"ready": True}), flush=True)
    if wanted["once"]:
        return
    while True:
        due = time.monotonic() + wanted["poll_s"]
        while time.monotonic() < due and not follower.urgent:
            time.sleep(LOOK_S)
        follower.turn()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
