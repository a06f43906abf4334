"""What the registry says, carried out in one process: another champion, a challenger's share, a rollback."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol, cast

from starlette.requests import Request

from lensmith.errors import ImageError, LensmithError
from lensmith.imaging.preprocessing import Tensor
from lensmith.rollout.report import Role
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.rollout.state import DesiredState
from lensmith.serving.execution.admission import AdmissionControl
from lensmith.serving.execution.job import ExpiredError, Job
from lensmith.serving.execution.loaded_model import LoadedModel, ModelVersion, TimedPrediction
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.metrics.rollout import RolloutMetrics
from lensmith.serving.metrics.telemetry import Telemetry
from lensmith.serving.rollout.canary import Canary

logger = logging.getLogger(__name__)

LOOK_S = 0.25
"""Seconds between two looks into the channel."""
AGAIN_S = 60.0
"""Seconds after which a champion that could not be loaded is tried again: memory may have been short."""
MOST_COPIES = 8
"""Copies of requests that a challenger in shadow works on at once; others are not made."""
ROLE = "role"
"""Where a request's state holds its part in a canary release, as `flowers-7/challenger`."""
CLASSIFIED = "classified"
"""Where it holds that a model has answered at least one image."""

State = MutableMapping[str, Any]


class ServiceParts(Protocol):
    """What a release needs of the service."""

    admission: AdmissionControl
    telemetry: Telemetry


class RolloutController:
    """Follows what the channel says.

    Args:
        models: changed here.
        channel: of the process that follows the registry.
        around: the service.
        metrics: for Prometheus.

    Attributes:
        known: what the registry said last.
        canary: the canary release that is under way; None: none, or its challenger is not here yet.
    """

    def __init__(
        self, models: ModelManager, channel: SidecarChannel, around: ServiceParts, metrics: RolloutMetrics
    ) -> None:
        self.known = channel.desired_state()
        self.canary: Canary | None = None
        self._models = models
        self._channel = channel
        self._around = around
        self._metrics = metrics
        self._refused: ModelVersion | None = None
        self._again_at = 0.0
        self._handed_in: dict[str, Any] = {}
        self._trouble = ""
        self._copies: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Look into the channel until cancelled."""
        while True:
            try:
                known = self._channel.desired_state()
                if known is not None:
                    self._metrics.note(self.known, known)
                    self.known = known
                    await self._champion(known)
                    await self._challenger(known)
                await self._hand_in()
            except Exception:  # what is served goes on
                logger.exception("what the registry says could not be carried out")
            await asyncio.sleep(LOOK_S)

    def choose(self, request: Request) -> LoadedModel:
        """What answers a request that names no version."""
        canary, champion = self.canary, self._models.active
        if canary is None or canary.challenger is None or not canary.under_way:
            return champion
        hers = not canary.rollout.shadow and canary.takes(_key(request, canary))
        request.scope["state"][ROLE] = f"{canary.rollout.id}/{'challenger' if hers else 'champion'}"
        return canary.challenger if hers else champion

    def instead(self, state: State, fault: BaseException) -> LoadedModel | None:
        """Count that the model of a request failed; what answers in its place, where it was the challenger."""
        role = self._role(state)
        if role is not None and self.canary is not None:
            self.canary.failed(role, fault)
            self._metrics.requests.labels(role, "failed").inc()
        # Also where the release has ended since the request was sent to it.
        return self._models.active if state.pop(ROLE, "").endswith("/challenger") else None

    def classified(self, request: Request, image: bytes | Tensor, found: TimedPrediction) -> None:
        """Count an image's answer, and have the challenger work on a copy where it stands in the shadow."""
        role = self._role(request.scope["state"])
        if role is None or self.canary is None:
            return
        request.scope["state"][CLASSIFIED] = True
        self.canary.classified(role, found)
        if self.canary.rollout.shadow and self.canary.takes(_key(request, self.canary)):
            self._copy(self.canary, image, found)

    def finished(self, state: State, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        role = self._role(state)
        # A batch of which no image could be used is answered, too, but by no model.
        if role is not None and self.canary is not None and status < 400 and state.get(CLASSIFIED):
            self.canary.answered(role, seconds if state.get("images", 1) == 1 else None)
            self._metrics.requests.labels(role, "answered").inc()

    def heard(self, role: str, right: bool) -> None:
        """Count feedback to an answer whose request had that part in a release."""
        if self.canary is not None and (which := self._role({ROLE: role})):
            self.canary.heard(which, right)

    def own_label(self, role: str, label: str, answered: str) -> str:
        """What the model that had that part in a release calls a class of the champion; what it answered, if that."""
        if self.canary is None or self._role({ROLE: role}) != "challenger":
            return label
        if self.canary.rollout.mapping.get(answered) == label:
            return answered
        return next((own for own, champions in self.canary.rollout.mapping.items() if champions == label), label)

    def _role(self, state: State) -> Role | None:
        """A request's part in the release that is under way."""
        rollout, _, role = state.get(ROLE, "").rpartition("/")
        return cast(Role, role) if self.canary is not None and rollout == self.canary.rollout.id else None

    async def _champion(self, known: DesiredState) -> None:
        wanted = ModelVersion(known.name, known.version)
        if wanted == self._models.active.identity or (wanted == self._refused and time.monotonic() < self._again_at):
            return
        tried = self.canary.challenger if self.canary else None
        try:
            if tried is not None and tried.identity == wanted:
                model = tried
                image_s = await asyncio.to_thread(_alone_s, model)
            else:
                model, image_s = await self._models.load_and_warm(known.path, self._around.admission.pool.warm, wanted)
        except Exception as error:
            self._refused, self._again_at = wanted, time.monotonic() + AGAIN_S
            logger.error("%s cannot be served, %s goes on: %s", wanted, self._models.active.identity, error)
            return
        self._refused = None
        self._models.active = model
        self._around.admission.set_image_time(image_s)
        logger.info("%s answers", wanted)
        self._around.telemetry.describe_models()

    async def _challenger(self, known: DesiredState) -> None:
        rollout = known.rollout
        canary = self.canary
        if rollout is None:
            self._end()
        elif known.decision is not None:
            # A promoted challenger goes on with its share until the alias names it, and then need not be loaded again.
            if known.decision.outcome != "promoted" or known.version != rollout.champion:
                self._end()
        elif (canary is None or canary.rollout.id != rollout.id) and known.challenger_path is not None:
            self._end()
            await self._begin(known)

    async def _begin(self, known: DesiredState) -> None:
        rollout, path = known.rollout, known.challenger_path
        assert rollout is not None
        assert path is not None
        champion = self._models.active
        try:
            named = ModelVersion(known.name, rollout.challenger)
            model, _ = await self._models.load_and_warm(path, self._around.admission.pool.warm, named)
        except Exception as error:
            self.canary = Canary(rollout, champion, None)
            self.canary.stop("load", str(error) if isinstance(error, LensmithError) else repr(error))
            return
        self.canary = Canary(rollout, champion, model)
        self._models.challenger = model
        logger.info("%s gets %g %% of the requests%s", model.identity, rollout.share, " as copies" * rollout.shadow)
        self._around.telemetry.describe_models()

    def _end(self) -> None:
        if self.canary is not None:
            self.canary = self._models.challenger = None
            self._around.telemetry.describe_models()

    async def _hand_in(self) -> None:
        """Leave what was counted, where it is more than the last time."""
        if self.canary is None:
            return
        report = self.canary.report.as_dict()
        if report == self._handed_in:
            return
        try:
            await asyncio.to_thread(self._channel.write_report, report)
        except OSError as error:  # such as a full disk; what was counted is handed in later
            if str(error) != self._trouble:
                logger.error("what a canary release has counted cannot be written down: %s", error)
            self._trouble = str(error)
        else:
            self._handed_in, self._trouble = report, ""

    def _copy(self, canary: Canary, image: bytes | Tensor, found: TimedPrediction) -> None:
        """Have the challenger answer, too, where nobody has to wait for it."""
        challenger, pool = canary.challenger, self._around.admission.pool
        if challenger is None or not canary.under_way or len(self._copies) >= MOST_COPIES or not pool.idle():
            return

        async def compare(answer: Awaitable[TimedPrediction]) -> None:
            try:
                canary.compared(found, await answer)
            except (ExpiredError, ImageError):  # none of its faults
                return
            except Exception as fault:
                canary.failed("challenger", fault)

        job = Job(challenger, image, 1, time.perf_counter() + self._around.admission.deadline_s)
        task = asyncio.create_task(compare(pool.submit(job)))
        self._copies.add(task)  # the loop itself keeps no hold of it
        task.add_done_callback(self._copies.discard)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it has noticed."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _alone_s(model: LoadedModel) -> float:
    """Seconds that an image takes alone."""
    started = time.perf_counter()
    model.classify(model.sample())
    return time.perf_counter() - started


def _key(request: Request, canary: Canary) -> str:
    """By what a request is told from others."""
    state = request.scope["state"]
    caller = state.get("caller")
    return str(caller.subject if caller and canary.rollout.sticky == "caller" else state["request_id"])
