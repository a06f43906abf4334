"""`POST /admin/model`: hot reload, another bundle takes the place of the active model while requests go on."""

from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request

from lensmith.errors import LensmithError, ServiceError
from lensmith.serving.auth import audit
from lensmith.serving.auth.middleware import client_address
from lensmith.serving.execution.admission import RETRY
from lensmith.serving.problems import ProblemError, documented
from lensmith.serving.schema import ModelName, SwapRequest
from lensmith.serving.service import Service


def add_admin(app: FastAPI, service: Service) -> None:
    """Add the route to `app`."""

    async def swap(request: Request, wanted: SwapRequest) -> ModelName:
        """Load a bundle beside the active model, verify and warm it, and make it the active one.

        Without a path, the bundle is read again from where the active one was. The response comes when the new model
        answers; if it cannot be served, the active one stays.
        """
        service.require_started()
        path = Path(wanted.bundle) if wanted.bundle else service.models.active.path
        outcome, details = "failed", {"bundle": str(path), "client": client_address(request.scope)}
        try:
            active = await service.hot_reload.swap(path)
            outcome, details["model"] = "done", str(active)
        except ServiceError as error:
            raise ProblemError("swap-under-way", str(error), RETRY) from error
        except LensmithError as error:
            outcome, details["reason"] = "refused", str(error)
            raise ProblemError("unusable-bundle", str(error)) from error
        finally:
            state = request.scope["state"]
            audit.record("POST /admin/model", state.get("caller"), state["request_id"], outcome, **details)
        return ModelName(name=active.name, version=active.version)

    app.add_api_route("/admin/model", swap, methods=["POST"], responses=documented(401, 403, 409, 422, 503))
