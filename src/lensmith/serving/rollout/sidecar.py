"""The process that follows the registry for a service: started, replaced when it dies, ended with the service.

It is a process of its own because MLflow's client takes seconds to import and 200 MB, and so that nothing of the
registry can hold up an answer. They talk by files; see `lensmith.rollout.sidecar_channel`.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lensmith import errors
from lensmith.config import ServeSettings
from lensmith.registry import references
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.rollout.state import DesiredState
from lensmith.serving.auth import audit

logger = logging.getLogger(__name__)

LOOK_S = 0.5
"""Seconds between two looks at whether the process lives, and at what there is to be put on record."""
LONGEST_PAUSE_S = 30.0


@contextmanager
def followed(settings: ServeSettings) -> Iterator[SidecarChannel | None]:
    """The channel in which stands what to serve, for as long as the service runs; None: it serves a bundle by its path.

    Raises:
        RegistryError: there is no such model, or the registry cannot be reached and nothing is known of before.
        BundleError, MissingPackageError: see there.
    """
    name = references.parse(settings.bundle)
    if name is None:
        yield None
        return
    with _following(name, settings, once=name.is_version) as channel:  # a version never changes
        yield channel


def pulled(path: Path, settings: ServeSettings) -> Path:
    """A bundle that is not followed: its path as it is, or where what NAME@ALIAS names now was put.

    Raises:
        RegistryError: see `followed`.
    """
    name = references.parse(path)
    if name is None:
        return path
    with _following(name, settings, once=True) as channel:
        known = channel.desired_state()
        assert known is not None  # as it said
        return known.path


@contextmanager
def _following(name: references.ModelReference, settings: ServeSettings, once: bool) -> Iterator[SidecarChannel]:
    with tempfile.TemporaryDirectory(prefix="lensmith-release-", ignore_cleanup_errors=True) as folder:
        following = _Following(name, settings, Path(folder), once)
        try:
            following.begin()
            yield SidecarChannel(Path(folder))
        finally:
            following.end()


class _Following:
    def __init__(self, name: references.ModelReference, settings: ServeSettings, folder: Path, once: bool) -> None:
        self._name = name
        self._once = once
        self._channel = SidecarChannel(folder)
        self._wanted = {
            "name": name.name,
            "which": name.which,
            "folder": str(folder),
            "tracking_uri": settings.tracking_uri,
            "poll_s": settings.poll_s,
            "once": once,
        }
        self._stopped = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        """Start it, and wait until it has told what to serve."""
        self._process = self._start()
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise errors.RegistryError(
                f"What {self._name} names was expected from the registry.",
                f"The process that asks for it ended with exit code {self._process.wait()}.",
                "What it said stands above.",
            )
        answer = json.loads(said)
        if "error" in answer:
            raise getattr(errors, answer["error"])(*answer["said"])
        if not self._once:
            threading.Thread(target=self._watch, name="registry", daemon=True).start()

    def end(self) -> None:
        """Stop it; it has nothing to finish."""
        self._stopped.set()
        if self._process is not None:
            _stop(self._process)

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lensmith.rollout.registry_sidecar"],
            stdin=subprocess.PIPE,  # closes with this process, however that ends
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C is for the service, which ends it
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self._wanted) + "\n")
        process.stdin.flush()
        return process

    def _watch(self) -> None:
        pause, before = 0.5, self._channel.desired_state()
        while not self._stopped.wait(LOOK_S):
            assert self._process is not None
            if self._process.poll() is not None:
                logger.error("the process that follows the registry ended; another is started")
                _stop(self._process)
                if self._stopped.wait(pause):
                    return
                pause = min(LONGEST_PAUSE_S, 2 * pause)
                self._process = self._start()
            if (known := self._channel.desired_state()) is not None and known is not before:
                _record(before, known)
                before = known


def _stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _record(before: DesiredState | None, known: DesiredState) -> None:
    """Put on record what has changed."""
    model = f"{known.name}@{known.version}"
    if before is None or known.version != before.version:
        audit.record("registry", None, "", "done", model=model, alias=known.alias)
    if before is not None and known.reachable != before.reachable:
        logger.warning("the registry %s", "answers again" if known.reachable else "is away; what is served goes on")
    rollout, decision = known.rollout, known.decision
    if rollout is None:
        return
    if decision is None and (before is None or before.rollout is None or before.rollout.id != rollout.id):
        audit.record("rollout", None, "", "begun", rollout=rollout.id, challenger=rollout.challenger, by=rollout.by)
    if decision is not None and before is not None and before.rollout is not None and before.decision is None:
        audit.record(
            "rollout", None, "", decision.outcome, rollout=rollout.id, challenger=rollout.challenger,
            guard=decision.guard, reason=decision.reason, by=decision.by,
        )  # fmt: skip
