"""`lensmith serve`: from settings to a listening service of one process or several, until graceful shutdown."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from io import UnsupportedOperation
from typing import TYPE_CHECKING

from lensmith.config import ServeSettings
from lensmith.core.standard_streams import open_closed_streams
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.formats import formats_note, require_decoders
from lensmith.serving.metrics import drop_foreign_folder, shared_metrics_folder
from lensmith.serving.metrics.logs import logging_as, require_log_file
from lensmith.serving.rollout.sidecar import follow_registry, pull_bundle
from lensmith.serving.server.listeners import bind
from lensmith.serving.server.signals import EarlySignals

if TYPE_CHECKING:
    from lensmith.serving.service import Service

logger = logging.getLogger(__name__)

ANNOUNCE_S = 1.0
"""Seconds in which standard output must take the line that announces the service."""


def serve(settings: ServeSettings) -> None:
    """Verify the bundle, warm up, answer over HTTP until SIGTERM or SIGINT, and finish the requests under way.

    Prints `lensmith serving NAME on URL` to standard output once it is ready, and in a second line formats that the
    model was trained on and the service does not take.

    Raises:
        BundleError: the bundle is damaged or answers differently from the exporter.
        RegistryError: the registry names the bundle, and cannot be reached or has no such model.
        ServiceError: the address is taken, or the service would be open to anybody.
        MissingPackageError: HEIC is among the formats, and its decoder is not installed.
    """
    open_closed_streams()
    require_decoders(settings)
    _allow_many_connections()
    require_log_file(settings)
    early = EarlySignals()
    with ExitStack() as resources:
        resources.enter_context(early.installed())  # before anything is read that SIGHUP asks to read again
        # Before the slow part, so that a taken port is reported at once.
        ports = [settings.port] if settings.health_port is None else [settings.port, settings.health_port]
        listeners = [resources.enter_context(each) for port in ports for each in bind(settings.host, port)]
        if settings.beside is not None:
            settings = settings.model_copy(update={"beside": pull_bundle(settings.beside, settings)})
        channel = resources.enter_context(follow_registry(settings))
        loading = ModelManager.start_loading(settings, channel) if settings.workers == 1 else None
        from lensmith.serving.auth.jwt import Authenticator, require_authentication

        require_authentication(settings, Authenticator.of(settings))
        with logging_as(settings):
            drop_foreign_folder()
            if loading is not None:
                _serve_alone(settings, listeners, loading, early)
            else:
                resources.enter_context(shared_metrics_folder())
                from lensmith.serving.server.supervisor import Supervisor

                def announce(name: str, note: str) -> None:
                    _announce(name, listeners[0], note)

                early.require_no_stop()
                Supervisor(settings, listeners, announce, channel, early.take_hangup).run()


def _serve_alone(
    settings: ServeSettings, listeners: list[socket.socket], loading: Future[ModelManager], early: EarlySignals
) -> None:
    from lensmith.serving.server.server import Server

    def ready(service: Service) -> None:
        service.hot_reload.on_hangup(early.take_hangup)
        if early.is_stopping:  # its exception was lost where Python cleans up
            server.should_exit = True
            return
        active = service.models.active
        _announce(active.name, listeners[0], formats_note(active.trained_formats, settings.formats))

    server = Server(loading.result(), settings, listeners, ready)
    early.require_no_stop()
    server.serve_until_stopped()


def _announce(name: str, listener: socket.socket, note: str) -> None:
    """Print name and address, and a note in a second line.

    A reader that is gone, stalled or full costs these lines only, and the log tells.
    """
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    line = "\n".join(filter(None, [f"lensmith serving {name} on http://{shown}:{port}", note]))

    def write() -> None:
        try:
            # Past Python's buffer: what stays in it would be written again, and fail again, when the process ends.
            descriptor = sys.stdout.fileno()
            rest = f"{line}\n".encode(errors="replace")
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except UnsupportedOperation:  # a program that put an object of its own in the place of standard output
            print(line, flush=True)
        except (OSError, AttributeError) as error:  # AttributeError: standard output was closed before the start
            logger.warning("%s; standard output cannot be written: %s", line, error)

    thread = threading.Thread(target=write, name="announce", daemon=True)
    thread.start()
    thread.join(ANNOUNCE_S)
    if thread.is_alive():
        logger.warning("%s; whoever reads standard output has stopped reading", line)


def _allow_many_connections() -> None:
    """Each connection takes a file; many systems let a process raise its own limit up to a higher one."""
    with suppress(ImportError, OSError, ValueError):  # Windows; macOS, which takes no limit of infinity
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
