"""Predictions for requests, whatever their protocol: which model answers, its pool, and the champion as a fallback."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from lensmith.errors import ImageError
from lensmith.imaging.preprocessing import Tensor
from lensmith.serving.execution.admission import RETRY, AdmissionControl
from lensmith.serving.execution.job import ExpiredError, Job
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.feedback.feedback import Feedback
from lensmith.serving.metrics.telemetry import Telemetry
from lensmith.serving.problems import ProblemError
from lensmith.serving.rollout.split import CanarySplit
from lensmith.serving.upload import UploadLimits

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Predictor:
    """Classifies the images of a request with the model that it asks for; `split` is None without a registry."""

    def __init__(
        self,
        models: ModelManager,
        admission: AdmissionControl,
        telemetry: Telemetry,
        feedback: Feedback,
        split: CanarySplit | None,
        limits: UploadLimits,
    ) -> None:
        self._models = models
        self._limits = limits
        self._admission = admission
        self._telemetry = telemetry
        self._feedback = feedback
        self._split = split

    def select_model(self, request: Request, wanted: str | None = None) -> LoadedModel:
        """The model that a request asks for, as NAME or NAME@VERSION; by default the active one, or the canary's.

        Raises:
            ProblemError: no such model.
        """
        if wanted is None:
            return self._split.choose_model(request) if self._split else self._models.active
        name, _, version = wanted.partition("@")
        found = self._models.find(name, version or None)
        if found is None:
            served = ", ".join(str(each.identity) for each in self._models.all)
            raise ProblemError("no-such-model", f"One of these was expected: {served}.")
        return found

    async def predict(self, request: Request, image: bytes | Tensor, top_k: int, model: LoadedModel) -> TimedPrediction:
        """Classify the one image of a request, as long as its client stays connected.

        Args:
            request: the request, after its body has been read.
            image: encoded bytes, or float32 (3, S, S), normalised.
            top_k: number of classes to name.
            model: the model that `select_model` returned.

        Raises:
            ProblemError: overloaded, expired, or an image that cannot be used.
            ClientDisconnect: the client left.
        """
        cost = self._limits.cost(image)
        delay_s = await self._admission.admit(request.scope["state"], cost)
        deadline = time.perf_counter() + self._admission.deadline_of(cost) - delay_s

        async def classify(model: LoadedModel) -> TimedPrediction:
            job = Job(model, image, top_k, deadline, cost)
            try:
                found = await while_connected(request, self._admission.pool.submit(job))
            except (ExpiredError, ImageError) as error:
                raise _problem(error) from None
            self._record(request, model, image, found)
            return found

        return await self._with_fallback(request, model, classify)

    async def predict_many(
        self, request: Request, images: Sequence[bytes | Tensor], top_k: int, model: LoadedModel
    ) -> list[TimedPrediction | ProblemError]:
        """Classify the images of one request, in their order; an image that cannot be used fails alone.

        At most as many of them wait as are classified at once, so that requests of single images come between. The
        arguments are those of `predict`; each image is encoded, or float32 (3, S, S), normalised.

        Raises:
            ProblemError: overloaded, before the first image.
            ClientDisconnect: the client left.
        """
        await self._admission.admit(request.scope["state"])
        request.scope["state"]["images"] = len(images)
        pool = self._admission.pool
        slots = asyncio.Semaphore(max(pool.threads, pool.max_batch))

        async def classify(model: LoadedModel, place: int) -> TimedPrediction | ProblemError:
            image = images[place]
            try:
                if isinstance(image, bytes):
                    self._limits.require_image(image)
                async with slots:
                    # Admitted as a whole, its later images are in time if each waits no longer than another would.
                    cost = self._limits.cost(image)
                    deadline = time.perf_counter() + 2 * self._admission.deadline_of(cost)
                    job = Job(model, image, top_k, deadline, cost)
                    found = await pool.submit(job)
            except ProblemError as problem:
                return problem
            except (ExpiredError, ImageError) as error:
                return _problem(error)
            self._record(request, model, image, found, place)
            return found

        async def classify_all(model: LoadedModel) -> list[TimedPrediction | ProblemError]:
            try:
                async with asyncio.TaskGroup() as group:  # a fault cancels them all
                    tasks = [group.create_task(classify(model, place)) for place in range(len(images))]
            except ExceptionGroup as faults:
                raise faults.exceptions[0] from None
            return [task.result() for task in tasks]

        return await self._with_fallback(
            request, model, lambda model: while_connected(request, asyncio.ensure_future(classify_all(model)))
        )

    async def _with_fallback(
        self, request: Request, model: LoadedModel, classify: Callable[[LoadedModel], Awaitable[T]]
    ) -> T:
        """Classify with a model, and again with the champion where the model is a challenger and fails.

        `request.scope["state"]["model"]` is the one that answered.
        """
        state = request.scope["state"]
        state["model"] = model
        try:
            return await classify(model)
        except (ProblemError, ClientDisconnect):
            raise
        except Exception as fault:
            champion = self._split.fall_back(state, fault) if self._split else None
            if champion is None:
                raise
            logger.warning(
                "request %s: %s failed and the champion answers: %r", state["request_id"], model.identity, fault
            )
        state["model"] = champion
        return await classify(champion)

    def _record(
        self, request: Request, model: LoadedModel, image: bytes | Tensor, found: TimedPrediction, place: int = 0
    ) -> None:
        """Record an image's prediction before it is sent: metrics, feedback, canary."""
        failures = self._telemetry.failures  # an observer's fault is neither the request's nor the model's
        with failures.guard("metrics"):
            self._telemetry.count_image(model, found)
        with failures.guard("feedback"):
            self._feedback.record_answer(request, model, image, found, place)
        if self._split is not None:
            with failures.guard("rollout"):
                self._split.count_prediction(request, image, found)


async def while_connected(request: Request, answer: asyncio.Future[T]) -> T:
    """Wait for `answer`, and cancel it when the client leaves, as nobody would read it.

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
