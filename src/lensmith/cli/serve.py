"""`lensmith serve`."""

from typing import Any

from lensmith import api
from lensmith.cli.options import command_for
from lensmith.config import ServeSettings


def serve(given: dict[str, Any]) -> None:
    """Serve a bundle over HTTP, with a page at / to drop an image on.

    The bundle is verified first; the address is printed when the service is ready. On Ctrl-C or SIGTERM the service
    finishes running requests and exits with 0. LENSMITH_SERVE_BUNDLE or lensmith.yaml may name the bundle instead.
    """
    api.serve(**given)


command = command_for(ServeSettings, serve, optional=("bundle",))
