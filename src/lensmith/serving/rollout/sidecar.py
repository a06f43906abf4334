"""Registry sidecar process of a service: started, replaced when it dies, ended with the service.

It is a process of its own because MLflow's client takes seconds to import and 200 MB, and so that the registry never
delays an answer. Service and sidecar exchange files; see `lensmith.rollout.sidecar_channel`.
"""

import json
import logging
import subprocess
import sys
import tempfile
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from lensmith import errors
from lensmith.config import ServeSettings
from lensmith.registry.references import ModelReference, parse
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.rollout.state import DesiredState
from lensmith.serving.auth import audit

logger = logging.getLogger(__name__)

WATCH_S = 0.5
"""Seconds between two checks whether the sidecar is alive, and of the desired state for the audit log."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Pause before a sidecar that died is replaced; it doubles each time."""


def follow_registry(settings: ServeSettings) -> AbstractContextManager[SidecarChannel | None]:
    """A context in which a sidecar keeps the channel up to date; None for a bundle that the settings name by its path.

    Entering it raises:
        RegistryError: there is no such model, or the registry is unreachable and nothing is cached.
        BundleError, MissingPackageError: the bundle is damaged, or MLflow is not installed.
    """
    reference = parse(settings.bundle)
    # A version number never changes what it names.
    return nullcontext() if reference is None else SidecarProcess(reference, settings, once=reference.is_version)


def pull_bundle(path: Path, settings: ServeSettings) -> Path:
    """The path of a bundle: `path` itself, or what NAME@ALIAS names now, pulled once.

    Raises:
        RegistryError: see `follow_registry`.
    """
    reference = parse(path)
    if reference is None:
        return path
    with SidecarProcess(reference, settings, once=True) as channel:
        state = channel.desired_state()
        assert state is not None  # since the sidecar is ready
        return state.path


class SidecarProcess:
    """Runs `python -m lensmith.rollout.registry_sidecar`; a context that yields its channel.

    With `once` the sidecar pulls the bundle once, and does not follow the alias.
    """

    def __init__(self, reference: ModelReference, settings: ServeSettings, once: bool) -> None:
        self._reference = reference
        self._once = once
        self._folder = tempfile.TemporaryDirectory(prefix="lensmith-rollout-", ignore_cleanup_errors=True)
        self._request = {
            "name": reference.name,
            "which": reference.which,
            "folder": self._folder.name,
            "tracking_uri": settings.tracking_uri,
            "poll_s": settings.poll_s,
            "once": once,
        }
        self._stopped = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> SidecarChannel:
        try:
            self._process = self._start()
            self._wait_until_ready(self._process)
        except BaseException:
            self.__exit__()
            raise
        if not self._once:
            threading.Thread(target=self._watch, args=[self._process], name="registry", daemon=True).start()
        return SidecarChannel(Path(self._folder.name))

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._process is not None:
            _kill(self._process)  # it has nothing to finish
        self._folder.cleanup()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lensmith.rollout.registry_sidecar"],
            stdin=subprocess.PIPE,  # closes with this process, however that ends
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C is for the service, which ends it
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self._request) + "\n")
        process.stdin.flush()
        return process

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise errors.RegistryError(
                f"The bundle of {self._reference} was expected from the registry.",
                f"The registry sidecar ended with exit code {process.wait()}.",
                "Its messages are printed above.",
            )
        answer = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["error"])(*answer["arguments"])

    def _watch(self, process: subprocess.Popen[str]) -> None:
        channel = SidecarChannel(Path(self._folder.name))
        pause, before = FIRST_PAUSE_S, channel.desired_state()
        while not self._stopped.wait(WATCH_S):
            if process.poll() is not None:
                logger.error("the registry sidecar ended; another is started")
                _kill(process)
                if self._stopped.wait(pause):
                    return
                pause = min(LONGEST_PAUSE_S, 2 * pause)
                self._process = process = self._start()
            if (state := channel.desired_state()) is not None and state is not before:
                _audit(before, state)
                before = state


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _audit(before: DesiredState | None, state: DesiredState) -> None:
    """Write what has changed to the audit log."""
    model = f"{state.name}@{state.version}"
    if before is None or state.version != before.version:
        audit.record("registry", None, "", "done", model=model, alias=state.alias)
    if before is not None and state.reachable != before.reachable:
        text = "answers again" if state.reachable else "is unreachable; the present models stay in service"
        logger.warning("the registry %s", text)
    rollout, decision = state.rollout, state.decision
    if rollout is None:
        return
    if decision is None and (before is None or before.rollout is None or before.rollout.id != rollout.id):
        audit.record("rollout", None, "", "begun", rollout=rollout.id, challenger=rollout.challenger, by=rollout.by)
    if decision is not None and before is not None and before.rollout is not None and before.decision is None:
        audit.record(
            "rollout", None, "", decision.outcome, rollout=rollout.id, challenger=rollout.challenger,
            guard=decision.guard, reason=decision.reason, by=decision.by,
        )  # fmt: skip
