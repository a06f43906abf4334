"""Canary: a challenger beside the champion in one process, its share of the requests (a sticky hash), its counts."""

import hashlib
import logging

from lensmith.rollout.metrics import bucket_of, class_bucket
from lensmith.rollout.report import Role, RolloutReport, StopReason
from lensmith.rollout.state import CanaryRelease
from lensmith.serving.execution.loaded_model import LoadedModel, NotFiniteError, TimedPrediction

logger = logging.getLogger(__name__)

IN_A_ROW = 3
"""Successive failures after which the challenger gets no more requests."""


class Canary:
    """A challenger beside the champion.

    Args:
        rollout: the rollout that is under way.
        champion: the active model, by whose classes both models' answers are counted.
        challenger: the challenger, loaded and warm; None where it could not be loaded.

    Attributes:
        report: counts of this process.
    """

    def __init__(self, rollout: CanaryRelease, champion: LoadedModel, challenger: LoadedModel | None) -> None:
        self.rollout = rollout
        self.challenger = challenger
        self.report = RolloutReport(rollout.id)
        self._failures_in_a_row = 0
        self._models = [model for model in (champion, challenger) if model is not None]
        self._class_of = {label: number for number, label in enumerate(champion.labels)}

    @property
    def is_active(self) -> bool:
        """Whether the challenger gets requests, or copies of them."""
        return self.challenger is not None and self.report.stop is None

    def takes(self, key: str) -> bool:
        """Canary split: whether a request is the challenger's, by a sticky hash that is the same in every process."""
        digest = hashlib.blake2b(f"{self.rollout.id}:{key}".encode(errors="replace"), digest_size=8).digest()
        return int.from_bytes(digest) < self.rollout.share / 100 * 2**64

    def stop(self, guard: str, reason: str) -> None:
        """Send the challenger no more requests; the registry sidecar then ends the rollout."""
        if self.report.stop is None:
            challenger, name = self.rollout.challenger, self.rollout.name
            logger.error("challenger %s of %s gets no more requests: %s", challenger, name, reason)
            self.report.stop = StopReason(guard, reason)

    def count_failure(self, role: Role, fault: BaseException) -> None:
        """Count a request that a model could not answer by its own fault."""
        self.report.of(role).failed += 1
        if role == "champion":
            return
        if isinstance(fault, NotFiniteError):
            self.stop("not-finite", f"its probabilities are not finite ({fault})")
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= IN_A_ROW:
            number = self._failures_in_a_row
            self.stop("errors-in-a-row", f"{number} requests one after another failed, the last with: {fault!r}")

    def count_answer(self, role: Role, seconds: float | None) -> None:
        """Count a request that was answered.

        Args:
            role: role of the model that answered.
            seconds: time from headers to answer of a single-image request; None for a batch.
        """
        counts = self.report.of(role)
        counts.answered += 1
        if seconds is not None:
            counts.latency[bucket_of(1000 * seconds)] += 1
        if role == "challenger":
            self._failures_in_a_row = 0

    def count_prediction(self, role: Role, found: TimedPrediction) -> None:
        """Count the prediction for one image."""
        counts = self.report.of(role)
        counts.work[bucket_of(1000 * (found.decode_s + found.inference_s))] += 1
        counts.classes[class_bucket(self._champion_class(role, found.prediction.top[0].label))] += 1

    def count_comparison(self, champion: TimedPrediction, challenger: TimedPrediction) -> None:
        """Count both models' predictions for the same image, in shadow mode."""
        counts = self.report.challenger
        counts.answered += 1
        counts.compared += 1
        class_id = self._champion_class("challenger", challenger.prediction.top[0].label)
        counts.agreed += class_id == champion.prediction.top[0].class_id
        self.count_prediction("challenger", challenger)
        self._failures_in_a_row = 0

    def knows(self, file_hash: int | None) -> bool:
        """Whether one of both models learnt from this very file, or was chosen on it."""
        return any(model.knows(file_hash) for model in self._models)

    def count_feedback(self, role: Role, right: bool, is_known: bool) -> None:
        """Count whether an answer was correct, by its true label; on an image that a model knows only that it came."""
        counts = self.report.of(role)
        if is_known:  # left out on both sides, so that both are compared on images of one kind
            counts.known += 1
        else:
            counts.right += right
            counts.wrong += not right

    def _champion_class(self, role: Role, label: str) -> int:
        """The champion's class index for a model's label; -1 where it has none."""
        if role == "challenger":
            label = self.rollout.mapping.get(label, label)
        return self._class_of.get(label, -1)
