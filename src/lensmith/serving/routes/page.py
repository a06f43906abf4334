"""The web page at `/`, without a build step and without requests to other hosts; and `GET /rollout`, which it shows."""

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from lensmith.serving.problems import documented
from lensmith.serving.schema import RolloutState
from lensmith.serving.service import Service

CONSOLE = Path(__file__).parents[1] / "console"


def add_page(app: FastAPI, service: Service) -> None:
    """Add the page, its files and the route to `app`."""

    async def page() -> FileResponse:
        """The page to drop an image on."""
        return FileResponse(CONSOLE / "index.html")

    async def rollout() -> RolloutState:
        """The desired state in the registry, and the latest rollout with its status; nulls without a registry."""
        if service.rollout is None or service.rollout.state is None:
            return RolloutState()
        return RolloutState(**{**service.rollout.state.model_dump(), "problem": service.rollout.problem})

    app.add_api_route("/rollout", rollout, responses=documented(401, 403))
    app.add_api_route("/", page, response_class=FileResponse, include_in_schema=False)
    app.mount("/console", StaticFiles(directory=CONSOLE, packages=[("lensmith.core", "page_assets")]))
