"""`POST /admin/model`: another bundle takes the place of the active one, while requests go on."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request

from lensmith.errors import BundleError, ServiceError
from lensmith.serve.problems import ProblemError, documented
from lensmith.serve.schema import ModelName, Swap
from lensmith.serve.service import Service
from lensmith.serve.trust import audit
from lensmith.serve.trust.gate import client_of
from lensmith.serve.work.admission import RETRY


def add_admin(app: FastAPI, service: Service) -> None:
    """Put the route into `app`."""

    async def swap(request: Request, wanted: Swap) -> ModelName:
        """Load a bundle beside the active model, prove it, warm it, and let it answer from then on.

        Without a path, the bundle is read again from where the active one was. The answer comes when the new model
        answers; if it cannot be served, the active one goes on.
        """
        service.require_ready()
        path = Path(wanted.bundle) if wanted.bundle else service.models.active.path
        outcome = "failed"
        try:
            model = await service.swap(path)
            outcome = f"{model.name}@{model.version} answers"
        except BundleError as error:
            outcome = f"refused: {error}"
            raise ProblemError("unusable-bundle", str(error)) from error
        except ServiceError as error:
            raise ProblemError("swap-under-way", str(error), RETRY) from error
        finally:
            state, client = request.scope["state"], client_of(request.scope)
            audit.record(
                "swap model", state.get("caller"), state["request_id"], outcome, bundle=str(path), client=client
            )
        return ModelName(name=model.name, version=model.version)

    app.add_api_route("/admin/model", swap, methods=["POST"], responses=documented(401, 403, 409, 422, 503))
