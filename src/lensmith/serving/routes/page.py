"""The web page at `/`, without a build step and without requests to other hosts."""

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

CONSOLE = Path(__file__).parents[1] / "console"


def add_page(app: FastAPI) -> None:
    """Add the page and its files to `app`."""

    async def page() -> FileResponse:
        """The page to drop an image on."""
        return FileResponse(CONSOLE / "index.html")

    app.add_api_route("/", page, methods=["GET", "HEAD"], response_class=FileResponse, include_in_schema=False)
    app.mount("/console", StaticFiles(directory=CONSOLE))
