"""Canary split: routes a share of the requests to the challenger, copies others in shadow mode, counts both models."""

import asyncio
import time
from collections.abc import Awaitable, MutableMapping
from typing import Any, cast

from starlette.requests import Request

from lensmith.errors import ImageError
from lensmith.imaging.decode_cost import decode_cost
from lensmith.imaging.decoding import MAX_PIXELS
from lensmith.imaging.preprocessing import Tensor
from lensmith.rollout.report import Role
from lensmith.serving.execution.admission import AdmissionControl
from lensmith.serving.execution.job import ExpiredError, Job
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.metrics.rollout import RolloutMetrics
from lensmith.serving.rollout.canary import Canary

MOST_COPIES = 8
"""Copies of requests that a challenger in shadow mode works on at once; further ones are not made."""
ROLE = "role"
"""Key of a request's state that holds rollout and role of its model, as `flowers-7/challenger`."""
HAS_PREDICTION = "has_prediction"
"""Key of a request's state that is set once a model has classified at least one of its images."""

State = MutableMapping[str, Any]


class CanarySplit:
    """Chooses the model of each request that names no version, and counts what comes of it.

    Attributes:
        canary: the canary that is under way; None without one, or while its challenger is being loaded.
    """

    def __init__(self, models: ModelManager, admission: AdmissionControl, metrics: RolloutMetrics) -> None:
        self.canary: Canary | None = None
        self._models = models
        self._admission = admission
        self._metrics = metrics
        self._copies: set[asyncio.Task[None]] = set()

    def choose_model(self, request: Request) -> LoadedModel:
        """Choose the model for a request that names no version, and note its role in the request's state."""
        canary, champion = self.canary, self._models.active
        if canary is None or canary.challenger is None or not canary.is_active:
            return champion
        is_challengers = not canary.rollout.shadow and canary.takes(_key(request, canary))
        request.scope["state"][ROLE] = f"{canary.rollout.id}/{'challenger' if is_challengers else 'champion'}"
        return canary.challenger if is_challengers else champion

    def fall_back(self, state: State, fault: BaseException) -> LoadedModel | None:
        """Count that a request's model failed; the champion where the challenger failed, else None."""
        if (found := self._canary_and_role(state.get(ROLE, ""))) is not None:
            canary, role = found
            canary.count_failure(role, fault)
            self._metrics.requests.labels(role, "failed").inc()
        # Also where the rollout has ended since the request was routed.
        return self._models.active if state.pop(ROLE, "").endswith("/challenger") else None

    def count_prediction(self, request: Request, image: bytes | Tensor, found: TimedPrediction) -> None:
        """Count the prediction for one image (encoded, or float32 (3, S, S)); in shadow mode submit a copy of it."""
        state = request.scope["state"]
        if (routed := self._canary_and_role(state.get(ROLE, ""))) is None:
            return
        canary, role = routed
        state[HAS_PREDICTION] = True
        canary.count_prediction(role, found)
        if canary.rollout.shadow and canary.takes(_key(request, canary)):
            self._submit_copy(canary, image, found)

    def count_request(self, state: State, status: int, seconds: float) -> None:
        """Count a request that has ended, `seconds` after its headers."""
        # A batch without a usable image is answered, too, but not by a model.
        if (
            status < 400
            and state.get(HAS_PREDICTION)
            and (routed := self._canary_and_role(state.get(ROLE, ""))) is not None
        ):
            canary, role = routed
            canary.count_answer(role, seconds if state.get("images", 1) == 1 else None)
            self._metrics.requests.labels(role, "answered").inc()

    def knows(self, tag: str, file_hash: int | None) -> bool:
        """Whether one of the models that are compared learnt from this very file, or was chosen on it.

        Args:
            tag: rollout and role of the model that answered; empty without a rollout.
            file_hash: hash of the bytes of the file; None for a tensor.
        """
        routed = self._canary_and_role(tag)
        return routed is not None and routed[0].knows(file_hash)

    def count_feedback(self, tag: str, right: bool, is_known: bool) -> None:
        """Count whether an answer was correct; its tag names rollout and role, see `ROLE`."""
        if (routed := self._canary_and_role(tag)) is not None:
            canary, role = routed
            canary.count_feedback(role, right, is_known)

    def own_label(self, tag: str, label: str, answered: str) -> str:
        """Translate a label of the champion for the model that answered; `answered` where both mean the same class.

        Args:
            tag: rollout and role of the model that answered; empty without a rollout.
            label: true label, one of the champion's or of the model that answered.
            answered: label that was answered.
        """
        routed = self._canary_and_role(tag)
        if routed is None or routed[1] != "challenger":
            return label
        mapping = routed[0].rollout.mapping
        if mapping.get(answered) == label:
            return answered
        return next((own for own, champions in mapping.items() if champions == label), label)

    def _canary_and_role(self, tag: str) -> tuple[Canary, Role] | None:
        """The canary, and a request's role in it by its tag; None where it had no part in the present rollout."""
        rollout, _, role = tag.rpartition("/")
        canary = self.canary
        return (canary, cast(Role, role)) if canary is not None and rollout == canary.rollout.id else None

    def _submit_copy(self, canary: Canary, image: bytes | Tensor, found: TimedPrediction) -> None:
        """Have the challenger classify an image that the champion answered, if the pool is idle."""
        challenger, pool = canary.challenger, self._admission.pool
        if challenger is None or not canary.is_active or len(self._copies) >= MOST_COPIES or not pool.idle():
            return

        async def compare(answer: Awaitable[TimedPrediction]) -> None:
            try:
                canary.count_comparison(found, await answer)
            except (ExpiredError, ImageError):  # not the challenger's fault
                return
            except Exception as fault:
                canary.count_failure("challenger", fault)

        cost = decode_cost(image, MAX_PIXELS) if isinstance(image, bytes) else None
        job = Job(challenger, image, 1, time.perf_counter() + self._admission.deadline_s, cost)
        task = asyncio.create_task(compare(pool.submit(job)))
        self._copies.add(task)  # the event loop itself keeps only a weak reference
        task.add_done_callback(self._copies.discard)


def _key(request: Request, canary: Canary) -> str:
    """The key that the split hashes: the caller, or the request's identifier."""
    state = request.scope["state"]
    caller = state.get("caller")
    return str(caller.subject if caller and canary.rollout.sticky == "caller" else state["request_id"])
