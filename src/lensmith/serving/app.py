"""The service as an ASGI application: its routes, and the middleware around them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from lensmith.config import ServeSettings
from lensmith.core.version import __version__
from lensmith.serving.auth.jwt import Authenticator
from lensmith.serving.auth.middleware import AuthMiddleware, declare_tokens
from lensmith.serving.auth.quota import Quota
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.middleware import (
    SECURE_HEADERS,
    ForwardedPrefixMiddleware,
    HeadersMiddleware,
    HeadMiddleware,
    InternalErrorMiddleware,
    ObservabilityMiddleware,
)
from lensmith.serving.platform import vertex_routes
from lensmith.serving.problems import handle_problems
from lensmith.serving.routes.admin import add_admin
from lensmith.serving.routes.classify import add_classify
from lensmith.serving.routes.fast_path import FastPathMiddleware, fast_routes
from lensmith.serving.routes.feedback import add_feedback
from lensmith.serving.routes.health import add_health
from lensmith.serving.routes.open_inference import add_open_inference
from lensmith.serving.routes.page import add_page
from lensmith.serving.routes.sagemaker import add_sagemaker
from lensmith.serving.routes.vertex import add_vertex
from lensmith.serving.service import Service


def create_app(models: ModelManager, settings: ServeSettings) -> FastAPI:
    """Make the application; it is ready once its lifespan has begun."""
    authenticator, vertex = Authenticator.of(settings), vertex_routes()
    health = frozenset({vertex.health} if vertex else ())
    service = Service(models, settings, Quota.of(settings, authenticated=authenticator is not None))
    service.hot_reload.keys = authenticator

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.lifespan():
            # Made beforehand, as the first request for the document would otherwise delay all others.
            asyncio.get_running_loop().run_in_executor(None, app.openapi)
            yield

    app: FastAPI = FastAPI(
        title="lensmith",
        summary=f"Image classification by {models.active.name}.",
        version=__version__,
        # The interactive pages of FastAPI load scripts from elsewhere; the page at / does not.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is at /metrics
        lifespan=lifespan,
        middleware=[
            Middleware(HeadersMiddleware, headers=SECURE_HEADERS, is_draining=service.is_draining),
            Middleware(ObservabilityMiddleware, service=service, log=settings.log_requests),
            Middleware(InternalErrorMiddleware, is_draining=service.is_draining),
            Middleware(AuthMiddleware, authenticator, health_port=lambda: service.health_port, health=health),
            Middleware(HeadMiddleware),
            Middleware(ForwardedPrefixMiddleware),
            Middleware(FastPathMiddleware, routes=lambda: fast_routes(app)),
        ],
    )
    app.state.service = service
    handle_problems(app)
    add_classify(app, service)
    add_feedback(app, service)
    add_health(app, service)
    add_open_inference(app, service)
    add_sagemaker(app, service)
    add_page(app, service)
    if vertex is not None:
        add_vertex(app, service, vertex)
    if authenticator is not None:  # without it nobody may administer
        add_admin(app, service)
        declare_tokens(app, health)
    return app
