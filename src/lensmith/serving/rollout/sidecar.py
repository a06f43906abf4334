"""Registry sidecar process of a service: started, replaced when it dies, ended with the service.

It is a process of its own because MLflow's client takes seconds to import and 200 MB, and so that the registry never
delays an answer. Service and sidecar exchange files; see `lensmith.rollout.sidecar_channel`.
"""

import json
import logging
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from lensmith import errors
from lensmith.config import ServeSettings
from lensmith.core.files import temporary_directory
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
        self._folder = temporary_directory("lensmith-rollout-")
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
        self._pause = FIRST_PAUSE_S

    def __enter__(self) -> SidecarChannel:
        try:
            self._process = self._start()
            self._wait_until_ready(self._process)
        except BaseException:
            self.__exit__()
            raise
        if not self._once:
            threading.Thread(target=self._watch, name="registry", daemon=True).start()
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
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a terminal's Ctrl-C is for the service, which ends it
        )
        threading.Thread(target=_log_messages, args=[process], name="registry-log", daemon=True).start()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, which is noticed elsewhere
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

    def _watch(self) -> None:
        channel = SidecarChannel(Path(self._folder.name))
        before, problem = channel.desired_state(), ""
        while not self._stopped.wait(WATCH_S):
            try:
                self._replace_dead()
                state = channel.desired_state()
                if state is not None and state is not before:
                    _audit(before, state)
                if state is not None and state.problem != problem:
                    problem = state.problem
                    _log_problem(state)
                before = state
            except Exception:  # such as no memory for a process: the present models stay, and it is tried again
                logger.exception("the registry is not followed for now")
                if self._stopped.wait(LONGEST_PAUSE_S):
                    return

    def _replace_dead(self) -> None:
        process = self._process
        if process is None or process.poll() is None:
            return
        logger.error("the registry sidecar ended; another is started")
        _kill(process)
        if self._stopped.wait(self._pause):
            return
        self._pause = min(LONGEST_PAUSE_S, 2 * self._pause)
        self._process = self._start()


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


def _log_messages(process: subprocess.Popen[str]) -> None:
    """Write what the sidecar prints on standard error to the log of the service."""
    assert process.stderr is not None
    with process.stderr as messages:
        for line in messages:
            if message := line.strip():
                logger.warning("registry sidecar: %s", message.removeprefix("lensmith: "))


def _log_problem(state: DesiredState) -> None:
    """Log that the registry is not followed any more, or again."""
    which = f"{state.name}@{state.alias}"
    if state.problem:
        logger.error("%s is not followed, version %s stays in service: %s", which, state.version, state.problem)
    else:
        logger.info("%s is followed again", which)


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
