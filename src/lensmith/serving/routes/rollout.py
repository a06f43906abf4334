"""`GET /rollout`: what the registry says is served, and how a canary release goes."""

from __future__ import annotations

from fastapi import FastAPI

from lensmith.serving.problems import documented
from lensmith.serving.schema import RolloutState
from lensmith.serving.service import Service


def add_rollout(app: FastAPI, service: Service) -> None:
    """Put the route into `app`."""

    async def rollout() -> RolloutState:
        """What the registry says is served, and how the latest rollout goes or ended; nulls without a registry."""
        known = service.rollout.known if service.rollout else None
        return RolloutState(**known.model_dump()) if known else RolloutState()

    app.add_api_route("/rollout", rollout, responses=documented(401, 403))
