"""`GET /rollout`: the desired state of the registry, and the comparison of a canary release."""

from fastapi import FastAPI

from lensmith.serving.problems import documented
from lensmith.serving.schema import RolloutState
from lensmith.serving.service import Service


def add_rollout(app: FastAPI, service: Service) -> None:
    """Add the route to `app`."""

    async def rollout() -> RolloutState:
        """What the registry wants served, and how the latest rollout goes or ended; nulls without a registry."""
        state = service.rollout.state if service.rollout else None
        return RolloutState(**state.model_dump()) if state else RolloutState()

    app.add_api_route("/rollout", rollout, responses=documented(401, 403))
