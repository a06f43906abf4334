"""The service itself, whatever the route: admission, the pool, the models, and what they answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from starlette.requests import ClientDisconnect, Request

from lensmith.config import ServeSettings
from lensmith.core.machine import allowed_cores
from lensmith.errors import ImageError
from lensmith.imaging.preprocessing import Tensor
from lensmith.serving.auth.middleware import client_of
from lensmith.serving.auth.quota import Quota
from lensmith.serving.execution.admission import RETRY, AdmissionControl, UploadBudget
from lensmith.serving.execution.autotune import choose_pool
from lensmith.serving.execution.loaded_model import LoadedModel, ModelVersion, TimedPrediction
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.execution.thread_pool import ExpiredError, Job, Pool
from lensmith.serving.feedback.feedback import Feedback
from lensmith.serving.metrics.rollout import RolloutMetrics
from lensmith.serving.metrics.telemetry import Telemetry
from lensmith.serving.problems import ProblemError
from lensmith.serving.rollout.controller import RolloutController, ended
from lensmith.serving.upload import require_image

logger = logging.getLogger(__name__)

T = TypeVar("T")

HOLD_S = 0.1
"""Seconds until a request is refused. A proxy that then asks another replica is still in time."""


class Service:
    """Models behind routes.

    Args:
        models: what answers.
        settings: limits, and how images are worked on.
        quota: what each caller may send; None: anything.

    Attributes:
        phase: `starting` until warm, `ready`, then `draining` once it was told to stop.
        told: what the start-up found out, for whoever started it.
        health_port: where health alone is asked; None: where everything is.
        rollout: follows the registry; None: the models come from elsewhere.
        swap_everywhere: swaps in all processes of the service; None: this is the only one.
    """

    pool: Pool
    admission: AdmissionControl

    def __init__(self, models: ModelManager, settings: ServeSettings, quota: Quota | None = None) -> None:
        self.models = models
        self.settings = settings
        self.quota = quota
        self.health_port: int | None = None
        self.swap_everywhere: Callable[[Path], Awaitable[ModelVersion]] | None = None
        self._swapping = asyncio.Lock()
        self.phase: Literal["starting", "ready", "draining"] = "starting"
        self.startup_report = ""
        self.budget = UploadBudget(settings.upload_memory)
        shared = quota.shared if quota else None
        self.telemetry = Telemetry(models, lambda: getattr(self, "pool", None), lambda: self.phase == "ready")
        if shared is not None:
            self.telemetry.watch_quota_store(lambda: shared.answers)
        self.feedback = Feedback(models, settings, self.telemetry.registry)
        self.rollout = (
            RolloutController(models, models.channel, self, RolloutMetrics(self.telemetry.registry))
            if models.channel
            else None
        )
        if (rollout := self.rollout) is not None:
            self.feedback.heard = lambda given: rollout.heard(given.tag, given.right)
            self.feedback.translate = rollout.own_label

    @asynccontextmanager
    async def lifespan(self, _app: Any) -> AsyncIterator[None]:
        """Measure, warm up, be ready, and close the pool at the end."""
        await asyncio.to_thread(self._make_ready)
        self.feedback.begin()
        self.phase = "ready"
        following = asyncio.create_task(self.rollout.follow()) if self.rollout else None
        try:
            yield
        finally:
            if following is not None:
                await ended(following)
            self.drain()
            self.pool.close()
            await asyncio.to_thread(self.feedback.close)
            if self.quota is not None:
                await self.quota.close()

    def _make_ready(self) -> None:
        settings = self.settings
        threads = settings.threads or max(1, allowed_cores() // settings.workers)
        chosen = choose_pool(self.models.active, threads, settings.batching, settings.max_batch)
        self.use(chosen.pool)
        self.startup_report = (
            f"{chosen.pool.describe()} ({chosen.why}), deadline {self.admission.deadline_s * 1000:.0f} ms"
        )
        for model in self.models.all:
            chosen.pool.warm(model)

    def use(self, pool: Pool) -> None:
        """Have images worked on by `pool`, which knows how long one takes."""
        self.pool = pool
        self.admission = AdmissionControl(pool, self.settings.deadline_ms / 1000, pool.predicted_s())

    def drain(self) -> None:
        """Stop being ready; requests that arrive all the same are still answered."""
        self.phase = "draining"

    def draining(self) -> bool:
        """Whether it was told to stop."""
        return self.phase == "draining"

    def require_ready(self) -> None:
        """Refuse where nothing can be answered yet.

        Raises:
            ProblemError: not ready.
        """
        if self.phase == "starting":
            raise ProblemError("not-ready", "The model is still being made ready. Ask again in a moment.", RETRY)

    def require_serving(self) -> None:
        """Refuse where requests should be sent elsewhere: what readiness probes ask.

        Raises:
            ProblemError: not ready, or stopping.
        """
        if self.draining():
            raise ProblemError("draining", "The service finishes what is under way and then ends. Ask another replica.")
        self.require_ready()

    async def admit(self, request: Request) -> None:
        """The door, before a body is read.

        Raises:
            ProblemError: not ready, or too much is under way to answer in time.
        """
        self.require_ready()
        await self._enter(request)

    async def _enter(self, request: Request) -> float:
        """Let a request in, or refuse it after a moment in which the load may have gone.

        A client that asks again as soon as it is refused would else take the cores from those that are answered.

        Returns:
            Seconds of its time that are gone.
        """
        state = request.scope["state"]
        held: float = state.get("held_s", 0.0)
        if not held and not self.admission.open():
            state["held_s"] = held = min(HOLD_S, self.admission.deadline_s / 2)
            await asyncio.sleep(held)
        self.admission.check(held)
        return held

    async def count_against_quota(self, request: Request, images: int = 1) -> None:
        """Count images against their caller's quota.

        Raises:
            ProblemError: it is used up.
        """
        if self.quota is None:
            return
        caller = request.scope["state"].get("caller")
        await self.quota.take(f"subject:{caller.subject}" if caller else f"address:{client_of(request.scope)}", images)

    def model(self, request: Request, named: str | None = None) -> LoadedModel:
        """The model that a request asks for, as NAME or NAME@VERSION.

        Where it asks for none, the active one or that of a canary release.

        Raises:
            ProblemError: no such model.
        """
        if named is None:
            return self.rollout.choose(request) if self.rollout else self.models.active
        name, _, version = named.partition("@")
        found = self.models.find(name, version or None)
        if found is None:
            there = ", ".join(str(each.identity) for each in self.models.all)
            raise ProblemError("no-such-model", f"One of these was expected: {there}.")
        return found

    async def answer(self, request: Request, image: bytes | Tensor, top_k: int, model: LoadedModel) -> TimedPrediction:
        """Classify one image, as long as its client stays.

        Args:
            request: its body has been read.
            image: encoded bytes, or float32 (3, S, S) that is prepared already.
            top_k: classes to name.
            model: answers.

        Raises:
            ProblemError: overloaded, expired, or no usable image.
            ClientDisconnect: the client left.
        """
        if isinstance(image, bytes):
            require_image(image)
        held_s = await self._enter(request)
        deadline = time.perf_counter() + self.admission.deadline_s - held_s

        async def one(model: LoadedModel) -> TimedPrediction:
            try:
                classified = await while_connected(request, self.pool.submit(Job(model, image, top_k, deadline)))
            except (ExpiredError, ImageError) as error:
                raise _problem(error) from None
            self._classified(request, model, image, classified)
            return classified

        return await self._by(model, request, one)

    async def answer_all(
        self, request: Request, images: Sequence[bytes | Tensor], top_k: int, model: LoadedModel
    ) -> list[TimedPrediction | ProblemError]:
        """Classify the images of one request, in their order; one that cannot be used takes no other with it.

        At most as many of them wait as are worked on at once, so that requests of single images come between.

        Raises:
            ProblemError: overloaded, before the first image.
            ClientDisconnect: the client left.
        """
        await self._enter(request)
        request.scope["state"]["images"] = len(images)
        places = asyncio.Semaphore(max(self.pool.threads, self.pool.max_batch))

        async def one(model: LoadedModel, image: bytes | Tensor, place: int) -> TimedPrediction | ProblemError:
            if isinstance(image, bytes):
                try:
                    require_image(image)
                except ProblemError as problem:
                    return problem
            async with places:
                # Admitted as a whole, its later images are in time as long as each waits no longer than another would.
                job = Job(model, image, top_k, time.perf_counter() + 2 * self.admission.deadline_s)
                try:
                    classified = await self.pool.submit(job)
                except (ExpiredError, ImageError) as error:
                    return _problem(error)
                self._classified(request, model, image, classified, place)
                return classified

        async def each(model: LoadedModel) -> list[TimedPrediction | ProblemError]:
            try:
                async with asyncio.TaskGroup() as group:  # a fault ends them all
                    tasks = [group.create_task(one(model, image, place)) for place, image in enumerate(images)]
            except ExceptionGroup as faults:
                raise faults.exceptions[0] from None
            return [task.result() for task in tasks]

        return await self._by(
            model, request, lambda model: while_connected(request, asyncio.ensure_future(each(model)))
        )

    async def _by(self, model: LoadedModel, request: Request, work: Callable[[LoadedModel], Awaitable[T]]) -> T:
        """Have a model do the work of a request, and where it is a challenger that fails, the champion.

        `request.scope["state"]["model"]` is what did it.
        """
        state = request.scope["state"]
        state["model"] = model
        try:
            return await work(model)
        except (ProblemError, ClientDisconnect):
            raise
        except Exception as fault:
            champion = self.rollout.instead(state, fault) if self.rollout else None
            if champion is None:
                raise
            logger.warning(
                "request %s: %s failed and the champion answers: %r", state["request_id"], model.identity, fault
            )
        state["model"] = champion
        return await work(champion)

    def finished(self, state: MutableMapping[str, Any], route: str, status: int, seconds: float) -> None:
        """Count a request that has ended, by what stands in its state."""
        model: LoadedModel | None = state.get("model")
        self.telemetry.answered(route, status, seconds, model.version if model else None)
        if "problem" in state:
            self.telemetry.refused(state["problem"])
        if self.rollout is not None:
            self.rollout.finished(state, status, seconds)

    def _classified(
        self, request: Request, model: LoadedModel, image: bytes | Tensor, found: TimedPrediction, place: int = 0
    ) -> None:
        """What is done with each image's answer before it is sent."""
        self.telemetry.classified(model, found)
        self.feedback.remember(request, model, image, found, place)
        if self.rollout is not None:
            self.rollout.classified(request, image, found)

    async def swap(self, path: Path) -> ModelVersion:
        """Load a bundle beside the active model, prove it, and let it answer from then on, in every process.

        Returns:
            Name and version of what answers now.

        Raises:
            BundleError: it cannot be served; the active model goes on.
            ServiceError: other processes cannot be had for it, or are just changing.
            ProblemError: another swap is under way, or the registry says what is served.
        """
        if self.rollout is not None:
            raise ProblemError(
                "follows-registry",
                f"{self.models.active.identity} comes from the registry. Change what its alias names, and it follows.",
            )
        if self._swapping.locked():
            raise ProblemError("swap-under-way", "Wait until the other one has ended.", RETRY)
        async with self._swapping:
            if self.swap_everywhere is not None:
                return await self.swap_everywhere(path)
            model, image_s = await self.models.load_and_warm(path, self.pool.warm)
            self.models.active = model
            self.admission.set_image_time(image_s)
            self.telemetry.describe_models()
            return model.identity


async def while_connected(request: Request, answer: asyncio.Future[T]) -> T:
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


def _problem(error: ExpiredError | ImageError) -> ProblemError:
    if isinstance(error, ImageError):
        return ProblemError("unusable-image", str(error))
    return ProblemError("expired", "The deadline passed before an image's turn came. Ask again in a moment.", RETRY)
