"""The routes, and what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Query
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from lensmith import __version__
from lensmith.classifier import Classifier, Prediction
from lensmith.config import ServeSettings
from lensmith.errors import ImageError
from lensmith.machine import allowed_cores
from lensmith.serve.middleware import SECURE_HEADERS, AnswerHeaders, Faults, Observed, RequestContext
from lensmith.serve.problems import MEDIA_TYPE, ProblemDetails, ProblemError, handle_problems
from lensmith.serve.schema import Answer, ModelCard, ModelName, RankedClass, Status, Timings
from lensmith.serve.telemetry import Telemetry
from lensmith.serve.upload import FIELD, read_image
from lensmith.serve.workers import OverloadedError, Workers

T = TypeVar("T")

CONSOLE = Path(__file__).parent / "console"
WAITING_PER_THREAD = 32
"""Images that may wait for each thread. At 5 ms an image the last of them waits 160 ms."""


@dataclass(frozen=True)
class Classified:
    """One image's answer, and the seconds that its halves took."""

    prediction: Prediction
    decode_s: float
    inference_s: float


class Service:
    """One classifier behind its routes.

    Attributes:
        phase: `starting` until warm, `ready`, then `draining` once it was told to stop.
    """

    def __init__(self, classifier: Classifier, settings: ServeSettings) -> None:
        self.classifier = classifier
        self.settings = settings
        self.phase: Literal["starting", "ready", "draining"] = "starting"
        threads = settings.threads or allowed_cores()
        self.workers = Workers(threads, max_waiting=WAITING_PER_THREAD * threads)
        self.telemetry = Telemetry(classifier, self.workers)
        manifest = classifier.bundle.manifest
        self._model = ModelName(name=manifest.name, version=manifest.version)

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Warm up, be ready, and close the workers at the end."""
        images = self.classifier.bundle.golden().images
        # Twice as many as there are threads, all at once: every thread has run the graph before the first request.
        rounds = range(2 * self.workers.threads)
        await asyncio.gather(*(self._submit(images[i % len(images)], 1) for i in rounds))
        self.phase = "ready"
        try:
            yield
        finally:
            self.drain()
            self.workers.close()

    def drain(self) -> None:
        """Stop being ready; requests that arrive all the same are still answered."""
        self.phase = "draining"

    def draining(self) -> bool:
        """Whether it was told to stop."""
        return self.phase == "draining"

    async def predict(
        self,
        request: Request,
        top_k: Annotated[int, Query(ge=1, description="Classes to name, likeliest first.")] = 5,
    ) -> Response:
        """Classify one JPEG or PNG image, sent as the body itself or in the form field `file`."""
        if self.phase == "starting":
            raise ProblemError("not-ready", "The model is still being made ready. Ask again in a moment.", _RETRY)
        encoded = await read_image(request, self.settings.max_bytes)
        try:
            classified = await _while_connected(request, self._submit(encoded, top_k))
        except OverloadedError:
            self.telemetry.shed.inc()
            detail = f"At most {self.workers.max_waiting} images may wait, and so many do. Ask again in a moment."
            raise ProblemError("overloaded", detail, _RETRY) from None
        except ImageError as error:
            raise ProblemError("unusable-image", str(error)) from error
        self.telemetry.decode.observe(classified.decode_s)
        self.telemetry.inference.observe(classified.inference_s)
        state = request.scope["state"]
        prediction = classified.prediction
        if prediction.abstained:
            self.telemetry.abstained.inc()
        top = [
            RankedClass(class_id=each.class_id, label=each.label, confidence=each.confidence) for each in prediction.top
        ]
        answer = Answer(
            class_id=top[0].class_id,
            label=top[0].label,
            confidence=top[0].confidence,
            abstained=prediction.abstained,
            top=top,
            model=self._model,
            request_id=state["request_id"],
            timings_ms=Timings(
                decode=_ms(classified.decode_s),
                inference=_ms(classified.inference_s),
                total=_ms(time.perf_counter() - state["started"]),
            ),
        )
        return Response(answer.model_dump_json(), media_type="application/json")

    async def model(self) -> ModelCard:
        """What is served, and the limits on what may be sent."""
        manifest, engine = self.classifier.bundle.manifest, self.classifier.engine
        return ModelCard(
            name=manifest.name,
            version=manifest.version,
            created=manifest.created,
            labels=list(manifest.labels),
            image_size=manifest.preprocessing.image_size,
            engine=engine.name,
            precision=engine.precision,
            metrics=manifest.metrics,
            abstention=manifest.abstention,
            max_bytes=self.settings.max_bytes,
            max_pixels=self.settings.max_pixels,
        )

    async def livez(self) -> Status:
        """Whether the process answers at all; restart it if not."""
        return Status(status="alive")

    async def readyz(self) -> Status:
        """Whether to send requests here: the model is loaded, verified and warm, and the service is not stopping."""
        if self.phase == "starting":
            raise ProblemError("not-ready", "The model is still being made ready.", _RETRY)
        if self.phase == "draining":
            raise ProblemError("draining", "The service finishes what is under way and then ends. Ask another replica.")
        return Status(status="ready")

    async def metrics(self) -> Response:
        """Measurements in Prometheus's text format."""
        return Response(self.telemetry.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def page(self) -> FileResponse:
        """The page to drop an image on."""
        return FileResponse(CONSOLE / "index.html")

    def _submit(self, encoded: bytes, top_k: int) -> asyncio.Future[Classified]:
        return self.workers.submit(lambda: self._classify(encoded, top_k))

    def _classify(self, encoded: bytes, top_k: int) -> Classified:
        started = time.perf_counter()
        prepared = self.classifier.prepare(encoded, self.settings.max_pixels)
        decoded = time.perf_counter()
        prediction = self.classifier.answer(prepared, top_k)
        return Classified(prediction, decoded - started, time.perf_counter() - decoded)


def create_app(classifier: Classifier, settings: ServeSettings) -> FastAPI:
    """The service as an ASGI application; it is ready once its lifespan has begun.

    Args:
        classifier: loaded with one thread, as each worker runs an image of its own.
        settings: limits and number of workers; host and port are for `lensmith.serve.run`.
    """
    service = Service(classifier, settings)
    app = FastAPI(
        title="lensmith",
        summary=f"Image classification by {classifier.bundle.manifest.name}.",
        version=__version__,
        # The interactive pages of FastAPI load scripts from elsewhere; the page at / does not.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=service.lifespan,
        middleware=[
            Middleware(RequestContext),
            Middleware(Observed, telemetry=service.telemetry),
            Middleware(AnswerHeaders, headers=SECURE_HEADERS, draining=service.draining),
            Middleware(Faults, draining=service.draining),
        ],
    )
    app.state.service = service
    handle_problems(app)
    app.add_api_route(
        "/predict",
        service.predict,
        methods=["POST"],
        response_model=Answer,
        responses=_problems(413, 415, 422, 500, 503),
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    app.add_api_route("/model", service.model)
    app.add_api_route("/livez", service.livez)
    app.add_api_route("/readyz", service.readyz, responses=_problems(503))
    app.add_api_route("/metrics", service.metrics, response_class=Response)
    app.add_api_route("/", service.page, response_class=FileResponse, include_in_schema=False)
    app.mount("/console", StaticFiles(directory=CONSOLE))
    return app


async def _while_connected(request: Request, answer: asyncio.Future[T]) -> T:
    """Wait for `answer`, and cancel it when the client leaves: nobody would read it.

    Raises:
        ClientDisconnect: the client left.
    """
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        answer.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await answer
    except asyncio.CancelledError:
        if left:
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entry of the error envelope for each status."""
    schema = ProblemDetails.model_json_schema()
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


_RETRY = {"retry-after": "1"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_BODY = {
    "required": True,
    "description": f"The image itself, or a form with the image in the field `{FIELD}`.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "format": "binary"}},
            }
        },
        "image/jpeg": _BINARY,
        "image/png": _BINARY,
    },
}
