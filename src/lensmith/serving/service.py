"""The service behind all routes: its parts, its life from start to graceful shutdown, and what health probes ask."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from starlette.requests import Request

from lensmith.config import ServeSettings
from lensmith.core.machine import allowed_cores
from lensmith.serving.auth.middleware import client_address
from lensmith.serving.auth.quota import Quota
from lensmith.serving.execution.admission import RETRY, AdmissionControl, UploadBudget
from lensmith.serving.execution.autotune import choose_pool
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.feedback.feedback import Feedback
from lensmith.serving.hot_reload import HotReload
from lensmith.serving.metrics.telemetry import Telemetry
from lensmith.serving.predictor import Predictor
from lensmith.serving.problems import ProblemError
from lensmith.serving.rollout.controller import RolloutController
from lensmith.serving.upload import UploadReader


class Service:
    """The parts of a service, put together.

    Attributes:
        phase: `starting` until warm, then `ready`, then `draining` during graceful shutdown.
        startup_report: execution mode and deadline that the start-up measured, for the log.
        health_port: port that answers health probes only; None: all routes share one port.
        rollout: carries out canary releases from the registry; None: the models come from elsewhere.
    """

    def __init__(self, models: ModelManager, settings: ServeSettings, quota: Quota | None = None) -> None:
        self.models = models
        self.settings = settings
        self.phase: Literal["starting", "ready", "draining"] = "starting"
        self.startup_report = ""
        self.health_port: int | None = None
        stated = "deadline_ms" in settings.model_fields_set
        self.admission = AdmissionControl(settings.deadline_ms / 1000, adapts=not stated)
        self.upload_budget = UploadBudget(settings.upload_memory)
        self.uploads = UploadReader(settings)
        shared = quota.shared if quota else None
        channel = models.channel
        self.telemetry = Telemetry(
            models,
            lambda: self.admission.pool,
            lambda: self.phase == "ready",
            (lambda: shared.answers) if shared else None,
        )
        self.rollout = (
            RolloutController(models, channel, self.admission, self.telemetry, settings.poll_s) if channel else None
        )
        split = self.rollout.split if self.rollout else None
        self.feedback = Feedback(models, settings, self.telemetry.registry, split)
        self.predictor = Predictor(models, self.admission, self.telemetry, self.feedback, split, self.uploads.limits)
        self.hot_reload = HotReload(models, self.admission, self.telemetry)
        self._quota = quota

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Measure, warm up, be ready; at the end stop the background work (graceful shutdown)."""
        await asyncio.to_thread(self._warm_up)
        self.feedback.begin()
        self.phase = "ready"
        following = asyncio.create_task(self.rollout.follow()) if self.rollout else None
        try:
            yield
        finally:
            if following is not None:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following
            self.drain()
            self.admission.pool.close()
            await asyncio.to_thread(self.feedback.close)
            if self._quota is not None:
                await self._quota.close()
            self.telemetry.flush()

    def _warm_up(self) -> None:
        settings = self.settings
        threads = settings.threads or max(1, allowed_cores() // settings.workers)
        pool, why = choose_pool(self.models.active, threads, settings.batching, settings.max_batch)
        self.admission.use(pool)
        self.startup_report = f"{pool.describe()} ({why}), {self.admission.describe()}"
        for model in self.models.all:
            pool.warm(model)

    def drain(self) -> None:
        """Begin graceful shutdown: not ready any more, but requests that still arrive are answered."""
        self.phase = "draining"

    def is_draining(self) -> bool:
        """Whether graceful shutdown has begun."""
        return self.phase == "draining"

    def require_started(self) -> None:
        """Refuse a request before the first model is ready.

        Raises:
            ProblemError: not ready.
        """
        if self.phase == "starting":
            raise ProblemError("not-ready", "The model is still being made ready. Ask again in a moment.", RETRY)

    def require_ready(self) -> None:
        """Answer a readiness probe: whether requests should be sent here rather than to another replica.

        Raises:
            ProblemError: not ready, or draining.
        """
        if self.is_draining():
            raise ProblemError("draining", "The service finishes what is under way and then ends. Ask another replica.")
        self.require_started()

    async def admit(self, request: Request) -> None:
        """Admit a request before its body is read.

        Raises:
            ProblemError: not ready, or too many requests are queued to answer it in time.
        """
        self.require_started()
        await self.admission.admit(request.scope["state"], body_read=False)

    async def count_against_quota(self, request: Request, images: int = 1) -> None:
        """Count images against the rate limit of their caller: its token's subject, or its address.

        Raises:
            ProblemError: over quota.
        """
        if self._quota is None:
            return
        caller = request.scope["state"].get("caller")
        key = f"subject:{caller.subject}" if caller else f"address:{client_address(request.scope)}"
        await self._quota.take(key, images)
