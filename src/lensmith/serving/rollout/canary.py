"""One canary release as one process carries it out: which requests the challenger gets, and what is counted."""

from __future__ import annotations

import hashlib
import logging

from lensmith.rollout.metrics import CONFIDENCE_BUCKETS, bucket_of, class_bucket
from lensmith.rollout.report import Role, RolloutReport, StopReason
from lensmith.rollout.state import CanaryRelease
from lensmith.serving.execution.loaded_model import LoadedModel, NotFiniteError, TimedPrediction

logger = logging.getLogger(__name__)

IN_A_ROW = 3
"""Requests one after another that the challenger fails until it gets no more."""


class Canary:
    """A challenger beside the champion.

    Args:
        rollout: how it is tried.
        champion: answers the other requests; its classes are those that are counted.
        challenger: loaded and warm; None: it could not be loaded.
    """

    def __init__(self, rollout: CanaryRelease, champion: LoadedModel, challenger: LoadedModel | None) -> None:
        self.rollout = rollout
        self.challenger = challenger
        self.report = RolloutReport(rollout.id)
        self._row = 0
        self._class_of = {label: number for number, label in enumerate(champion.labels)}

    @property
    def under_way(self) -> bool:
        """Whether the challenger gets requests, or copies of them."""
        return self.challenger is not None and self.report.stop is None

    def takes(self, key: str) -> bool:
        """Whether a request belongs to the challenger's share; for the same key always the same, in every process."""
        digest = hashlib.blake2b(f"{self.rollout.id}:{key}".encode(errors="replace"), digest_size=8).digest()
        return int.from_bytes(digest) < self.rollout.share / 100 * 2**64

    def stop(self, guard: str, reason: str) -> None:
        """Send the challenger nothing more."""
        if self.report.stop is None:
            logger.error("challenger %s of %s gets no more requests: %s", *self._named(), reason)
            self.report.stop = StopReason(guard, reason)

    def failed(self, role: Role, fault: BaseException) -> None:
        """Count a request that a model could not answer by its own fault."""
        self.report.of(role).failed += 1
        if role == "champion":
            return
        if isinstance(fault, NotFiniteError):
            self.stop("not-finite", f"it answered with what is no number ({fault})")
        self._row += 1
        if self._row >= IN_A_ROW:
            self.stop("errors-in-a-row", f"{self._row} requests one after another failed, the last with: {fault!r}")

    def answered(self, role: Role, seconds: float | None) -> None:
        """Count a request that was answered; its seconds from headers to answer where it was of a single image."""
        counts = self.report.of(role)
        counts.answered += 1
        if seconds is not None:
            counts.latency[bucket_of(1000 * seconds)] += 1
        if role == "challenger":
            self._row = 0

    def classified(self, role: Role, found: TimedPrediction) -> None:
        """Count an image's answer."""
        counts, top = self.report.of(role), found.prediction.top[0]
        counts.work[bucket_of(1000 * (found.decode_s + found.inference_s))] += 1
        counts.classes[class_bucket(self.champions_class(role, top.label))] += 1
        counts.confidence[min(CONFIDENCE_BUCKETS - 1, int(top.confidence * CONFIDENCE_BUCKETS))] += 1

    def compared(self, champion: TimedPrediction, challenger: TimedPrediction) -> None:
        """Count what both have answered to the same image."""
        counts = self.report.challenger
        counts.answered += 1
        counts.compared += 1
        theirs = self.champions_class("challenger", challenger.prediction.top[0].label)
        counts.agreed += theirs == champion.prediction.top[0].class_id
        self.classified("challenger", challenger)
        self._row = 0

    def heard(self, role: Role, right: bool) -> None:
        """Count what feedback says of an answer."""
        counts = self.report.of(role)
        counts.right += right
        counts.wrong += not right

    def champions_class(self, role: Role, label: str) -> int:
        """The champion's class of that label, -1 where it has none."""
        if role == "challenger":
            label = self.rollout.mapping.get(label, label)
        return self._class_of.get(label, -1)

    def _named(self) -> tuple[str, str]:
        return self.rollout.challenger, self.rollout.name
