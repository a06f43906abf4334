"""What Vertex AI asks of a custom container, at the addresses that it names in the container's environment."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from lensmith.serving.platform import VertexRoutes
from lensmith.serving.problems import documented
from lensmith.serving.routes.classify import item
from lensmith.serving.routes.fast_path import FastRoute
from lensmith.serving.routes.instances import Parameters, answer_instances, instances_schema, read_instances
from lensmith.serving.routes.json_body import body_of
from lensmith.serving.schema import BatchItem, Status
from lensmith.serving.service import Service


class Predictions(BaseModel):
    """What Vertex AI passes on, with members of its own beside it."""

    predictions: list[BatchItem] = Field(description="In the order of the instances.")


class Vertex:
    """The handlers.

    Args:
        service: answers.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def health(self, _request: Request) -> Response:
        """Whether to send requests here."""
        self.service.require_ready()
        return Response(Status(status="ready").model_dump_json(), media_type="application/json")

    async def predict(self, request: Request) -> Response:
        """Classify the images of `instances`; one that cannot be used has its problem in its place."""
        service = self.service
        await service.admit(request)
        with service.upload_budget.share() as share:
            asked = await read_instances(request, service.uploads, share)
            parameters = asked.parameters or Parameters()
            model = service.predictor.select_model(request, parameters.model)
            found = await answer_instances(service, request, asked.instances, parameters.top_k, model)
        answer = Predictions(predictions=[item(each, request) for each in found])
        return Response(answer.model_dump_json(), media_type="application/json")


def add_vertex(app: FastAPI, service: Service, routes: VertexRoutes) -> None:
    """Put the routes into `app`, in the place of what is there: Vertex AI may well name /predict."""
    handlers = Vertex(service)
    app.router.routes[:] = [
        each
        for each in app.router.routes
        if not (isinstance(each, APIRoute) and each.path in (routes.health, routes.predict))
    ]
    app.router.add_api_route(
        routes.health, handlers.health, response_model=Status, responses=documented(503), route_class_override=FastRoute
    )
    app.router.add_api_route(
        routes.predict,
        handlers.predict,
        methods=["POST"],
        response_model=Predictions,
        responses=documented(401, 403, 404, 408, 413, 422, 429, 500, 503, 504),
        openapi_extra={"requestBody": body_of(instances_schema(service.settings.max_images), "Images as base64.")},
        route_class_override=FastRoute,
    )
