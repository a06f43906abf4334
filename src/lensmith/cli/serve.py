"""`lensmith serve`."""

from __future__ import annotations

from typing import Any

from lensmith.cli.options import command_for
from lensmith.config import ServeSettings


def serve(given: dict[str, Any]) -> None:
    """Answer over HTTP, with a page at / to drop an image on.

    The bundle is verified first; the address is printed when the service is ready. Ctrl-C or SIGTERM finishes
    the requests that are under way and ends with exit code 0. The bundle may be named by LENSMITH_SERVE_BUNDLE or
    lensmith.yaml instead.
    """
    from lensmith import api

    api.serve(**given)


command = command_for(ServeSettings, serve, optional=("bundle",))
