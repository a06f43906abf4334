"""`lensmith serve`: from settings to a listening service of one process or several, until graceful shutdown."""

from __future__ import annotations

import signal
import socket
import sys
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from lensmith.config import ServeSettings
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.metrics import shared_metrics_folder
from lensmith.serving.metrics.logs import logging_as
from lensmith.serving.rollout.sidecar import follow_registry, pull_bundle
from lensmith.serving.server.listeners import bind

if TYPE_CHECKING:
    from lensmith.serving.service import Service


def serve(settings: ServeSettings) -> None:
    """Verify the bundle, warm up, answer over HTTP until SIGTERM or SIGINT, and finish the requests under way.

    Prints `lensmith serving NAME on URL` to standard output once it is ready.

    Raises:
        BundleError: the bundle is damaged or answers differently from the exporter.
        RegistryError: the registry names the bundle, and cannot be reached or has no such model.
        ServiceError: the address is taken, or the service would be open to anybody.
    """
    _allow_many_connections()
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is a bundle that could be read again
    with ExitStack() as resources:
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
            if loading is not None:
                _serve_alone(settings, listeners, loading)
            else:
                resources.enter_context(shared_metrics_folder())
                from lensmith.serving.server.supervisor import Supervisor

                Supervisor(settings, listeners, lambda name: _announce(name, listeners[0]), channel).run()


def _serve_alone(settings: ServeSettings, listeners: list[socket.socket], loading: Future[ModelManager]) -> None:
    from lensmith.serving.server.server import Server

    def ready(service: Service) -> None:
        service.hot_reload.on_hangup()
        _announce(service.models.active.name, listeners[0])

    Server(loading.result(), settings, listeners, ready).serve_until_stopped()


def _announce(name: str, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"lensmith serving {name} on http://{shown}:{port}", flush=True)


def _allow_many_connections() -> None:
    """Each connection takes a file; the system lets a process raise its own limit up to a higher one."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
