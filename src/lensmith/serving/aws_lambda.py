"""AWS Lambda: the service as a function, without a server of its own."""

import asyncio
from os import PathLike
from typing import Any

from lensmith.config import ServeSettings
from lensmith.errors import ServiceError

DEADLINE_MS = 25_000.0
"""API Gateway times out after 29 s. Lambda sends one request at a time, so there is no queue to limit."""
TEXT = ["text/", "application/json", "application/problem+json"]
"""Media types that an answer's event holds as text; others go as base64."""


class LambdaHandler:
    """The service as a Lambda function, for events of API Gateway (both formats) and of function URLs.

    The cold start is the construction: it loads, verifies and warms the bundle; calls only answer. It may be called
    again and again from the thread that made it, as Lambda does.

    Args:
        bundle: folder or zip, beside the handler's module or in a layer.
        base_path: prefix that API Gateway puts before the service's paths: the name of a stage or a mapping.
        settings: other fields of `ServeSettings`, or LENSMITH_SERVE_<NAME> in the function's environment. Without one
            of those that check tokens, `insecure` must be set: anybody who may call the function's address gets in.

    Raises:
        SettingsError: a setting is unusable.
        BundleError: the bundle is damaged, or answers differently from the exporter.
        ServiceError: nothing checks who calls.
        MissingPackageError: HEIC is among the formats, and its decoder is not installed.
    """

    def __init__(self, bundle: str | PathLike[str], base_path: str = "/", **settings: Any) -> None:
        from mangum import Mangum

        from lensmith.serving.app import create_app
        from lensmith.serving.auth.jwt import Authenticator
        from lensmith.serving.execution.model_manager import ModelManager
        from lensmith.serving.formats import require_decoders
        from lensmith.serving.metrics import drop_foreign_folder

        # One thread per core all the same, for the images of a batch. Batching is not measured, as that would prolong
        # every cold start.
        ours = {"deadline_ms": DEADLINE_MS, "batching": "off"}
        resolved = ServeSettings.resolve({"bundle": bundle, **settings}, ours)
        require_decoders(resolved)
        if not resolved.insecure and Authenticator.of(resolved) is None:
            raise ServiceError(
                "Authentication was expected, as whoever may call the function's address gets in.",
                "No secret, key or key set is named.",
                "Name one of jwt_secret_file, jwt_key_file and jwks, or say insecure=True where AWS checks who calls.",
            )
        drop_foreign_folder()
        app = create_app(ModelManager.load(resolved), resolved)
        app.root_path = f"/{base_path.strip('/')}".rstrip("/")  # the server's address in /openapi.json
        # Mangum's own lifespan would begin and end with every event.
        self._lifespan = app.router.lifespan_context(app)
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._lifespan.__aenter__())
        asyncio.set_event_loop(self._loop)
        self._answer = Mangum(app, lifespan="off", api_gateway_base_path=base_path, text_mime_types=TEXT)

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Answer a request's event with a response's; Lambda's `context` is not used."""
        asyncio.set_event_loop(self._loop)  # Mangum takes it from there
        answer: dict[str, Any] = self._answer(event, context)
        return answer

    def close(self) -> None:
        """Release threads and event loop. Lambda never calls it."""
        self._loop.run_until_complete(self._lifespan.__aexit__(None, None, None))
        asyncio.set_event_loop(None)
        self._loop.close()
