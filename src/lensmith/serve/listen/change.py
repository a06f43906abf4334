"""Another model for all processes of a service: prepared by each, then taken by all, or by none."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from lensmith.errors import LensmithError, ServiceError
from lensmith.serve.listen.member import Beat, Message

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    """One process: how to talk to it, which bundle it serves, when its event loop last turned, and whether it answers
    requests.
    """

    process: BaseProcess
    link: Connection
    bundle: Path
    started: float = field(default_factory=time.monotonic)
    ready: bool = False
    beat: Beat | None = None

    def tell(self, message: Message) -> None:
        """Send it a message; where it has died, that is noticed otherwise."""
        with suppress(OSError):
            self.link.send(message)


@dataclass
class _Change:
    """One under way: who asked (None: SIGHUP), who takes part, whose word is awaited, and what failed."""

    path: Path
    asked_by: Member | None
    taking_part: list[Member]
    awaited: set[Member]
    activating: bool = False
    error: LensmithError | None = None


class Changes:
    """One change at a time.

    Args:
        bundle: what all begin with.

    Attributes:
        bundle: what all serve now; whoever joins has to serve it, too.
    """

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self._change: _Change | None = None

    def begin(self, path: Path, asked_by: Member | None, members: Iterable[Member]) -> None:
        """Have all that answer requests prepare the bundle at `path`."""
        if self._change is not None:
            if asked_by:
                busy = "Another is under way.", "Wait until it has ended."
                asked_by.tell(Message("swapped", ServiceError("One swap at a time was expected.", *busy)))
            return
        ready = [each for each in members if each.ready]
        self._change = _Change(path, asked_by, ready, set(ready))
        for each in ready:
            each.tell(Message("prepare", path))

    def prepared(self, sender: Member, error: LensmithError | None) -> None:
        """It has the new model ready, or cannot."""
        change = self._change
        if (
            change is None or change.activating or sender not in change.awaited
        ):  # it came later than the others, and follows them
            if error is None:
                self._activate(sender)
            return
        change.awaited.discard(sender)
        change.error = change.error or error
        if change.awaited:
            return
        if change.error is not None:
            logger.error("no process took %s: %s", change.path, change.error)
            self._end(change)
            return
        self.bundle, change.activating = change.path, True
        change.awaited = set(change.taking_part)
        if not change.taking_part:  # all died meanwhile
            self._end(change)
        for each in change.taking_part:
            self._activate(each)

    def activated(self, sender: Member) -> None:
        """It answers with the new model; once all do, whoever asked is told."""
        change = self._change
        if change is None or not change.activating:
            return
        change.awaited.discard(sender)
        if not change.awaited:
            logger.info("all processes answer with %s", change.path)
            self._end(change)

    def joined(self, member: Member) -> None:
        """It answers requests from now on, and perhaps with a bundle that the others have left."""
        if member.bundle != self.bundle:
            member.tell(Message("prepare", self.bundle))

    def lost(self, member: Member) -> None:
        """It died; nothing more is awaited of it."""
        change = self._change
        if change is None or member not in change.awaited:
            return
        change.taking_part.remove(member)
        if change.activating:
            self.activated(member)
        else:
            self.prepared(member, None)

    def _activate(self, member: Member) -> None:
        member.bundle = self.bundle
        member.tell(Message("activate", None))

    def _end(self, change: _Change) -> None:
        self._change = None
        if change.asked_by:
            change.asked_by.tell(Message("swapped", change.error))
