"""Vertex AI's protocol for custom containers, at the paths that it names in the container's environment."""

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from lensmith.serving.platform import VertexRoutes
from lensmith.serving.routes.classify import item
from lensmith.serving.routes.fast_path import PREDICT_FAILURES, add_fast_route, json_response
from lensmith.serving.routes.health import add_readiness_probe
from lensmith.serving.routes.instances import Parameters, answer_instances, instances_schema, read_instances
from lensmith.serving.routes.json_body import body_of
from lensmith.serving.schema import BatchItem
from lensmith.serving.service import Service


class Predictions(BaseModel):
    """Response of Vertex AI's predictions, which it passes on with fields of its own."""

    predictions: list[BatchItem] = Field(description="In the order of the instances.")


def add_vertex(app: FastAPI, service: Service, routes: VertexRoutes) -> None:
    """Add the routes to `app`, replacing routes of the same path: Vertex AI may well name /predict."""

    async def predict(request: Request) -> Response:
        """Classify the images of `instances`; one that cannot be used has its problem in its place."""
        await service.admit(request)
        with service.upload_budget.share() as share:
            asked = await read_instances(service, request, share)
            parameters = asked.parameters or Parameters()
            model = service.predictor.select_model(request, parameters.model)
            found = await answer_instances(service, request, asked.instances, parameters.top_k, model)
        return json_response(Predictions(predictions=[item(each, request) for each in found]))

    app.router.routes[:] = [
        each
        for each in app.router.routes
        if not (isinstance(each, APIRoute) and each.path in (routes.health, routes.predict))
    ]
    add_readiness_probe(app, service, routes.health, "health")
    body = body_of(instances_schema(service.settings.max_images), "Images as base64.")
    add_fast_route(app, routes.predict, predict, Predictions, PREDICT_FAILURES, requestBody=body)
