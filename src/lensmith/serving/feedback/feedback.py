"""Which answers were right, by the true labels that callers send, and which uploads are kept to be labelled."""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter
from starlette.requests import Request

from lensmith.config import ServeSettings
from lensmith.feedback import storage
from lensmith.feedback.storage import Reason, Upload
from lensmith.imaging.preprocessing import Tensor
from lensmith.serving.execution.loaded_model import LoadedModel, ModelVersion, TimedPrediction
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.feedback.answer_store import FLUSH_S, AnswerStore, FeedbackAccuracy, RecordedAnswer
from lensmith.serving.feedback.upload_store import UploadStore
from lensmith.serving.metrics import SHARED_FOLDER
from lensmith.serving.problems import ProblemError

logger = logging.getLogger(__name__)

TAG = "role"
"""Where a request's state holds what is remembered with its answers: its part in a canary release."""
TOP_KEPT = 5
"""Classes that are noted with a kept upload."""
MOST_COMPARED = 1000
"""Classes among which one of a similar name is looked for: that takes 10 ms."""
UNTIL_WRITTEN_S = 2.0
"""Seconds that are waited for a kept upload of which the feedback came before the disk was done."""


@dataclass(frozen=True)
class GivenFeedback:
    """A true label that was sent for an answer.

    Attributes:
        model: what answered.
        tag: what was noted with the request.
        answered: the label that was answered.
        truth: the true one.
        new: False where the same had been said before.
        noted: whether it now stands beside a kept upload.
    """

    model: ModelVersion
    tag: str
    answered: str
    truth: str
    new: bool
    noted: bool

    @property
    def right(self) -> bool:
        """Whether the answer was the true label."""
        return self.answered == self.truth


class Feedback:
    """Remembers what is answered, keeps what is worth a label, and hears the truth.

    Args:
        models: those that are served; the labels of answers that only their kept upload still tells of.
        settings: how much is remembered and kept.
        registry: for Prometheus.

    Attributes:
        heard: called on the event loop with each new true label.
        translate: by an answer's tag, another model's label and what was answered → the label of the model that did.

    Raises:
        ServiceError: uploads are to be kept where nothing can be written.
    """

    def __init__(self, models: ModelManager, settings: ServeSettings, registry: CollectorRegistry) -> None:
        self.heard: Callable[[GivenFeedback], None] = lambda given: None
        self.translate: Callable[[str, str, str], str] = lambda tag, label, answered: label
        self._models = models
        self._below, self._share = settings.keep_below, settings.keep_share
        shared = os.environ.get(SHARED_FOLDER)
        self._answers = AnswerStore(settings.feedback_answers, Path(shared) if shared else None)
        self._upload_store = UploadStore(settings.keep, settings, registry) if settings.keep else None
        self._counted = Counter(
            "lensmith_feedback",
            "Answers whose true label was said, by version of the model and by whether it was right.",
            ["version", "outcome"],
            registry=registry,
        )

    def begin(self) -> None:
        """Work from now on; what is kept is said."""
        self._answers.begin()
        if self._upload_store is not None:
            logger.info(self._upload_store.describe())
            self._upload_store.begin()

    def close(self) -> None:
        """Finish what is under way; waits for the disk."""
        self._answers.close()
        if self._upload_store is not None:
            self._upload_store.close()

    def remember(
        self, request: Request, model: LoadedModel, image: bytes | Tensor, found: TimedPrediction, place: int
    ) -> None:
        """Note an answer, the `place`th of its request, and have its upload kept where it is worth a label."""
        state = request.scope["state"]
        request_id, tag, top = state["request_id"], state.get(TAG, ""), found.prediction.top[0]
        is_kept = False
        if self._upload_store is not None and isinstance(image, bytes) and (reason := self._reason(model, found)):
            upload = Upload(
                request_id=request_id,
                image=place,
                at=datetime.now(UTC),
                model=model.name,
                version=model.version,
                label=top.label,
                confidence=top.confidence,
                abstained=found.prediction.abstained,
                top=tuple((each.label, each.confidence) for each in found.prediction.top[:TOP_KEPT]),
                reason=reason,
                tag=tag,
            )
            is_kept = self._upload_store.offer(upload, image)
        self._answers.remember(request_id, place, model.identity, model.labels, top.class_id, tag, is_kept)

    def _reason(self, model: LoadedModel, found: TimedPrediction) -> Reason | None:
        """Why an upload is kept; None: it is not."""
        # Drawn before anything else, so that these are a fair sample of all.
        if self._share and random.random() < self._share:
            return "random"
        confidence = found.prediction.top[0].confidence
        if found.prediction.abstained or confidence < self._below:
            return "unsure"
        reference = model.classifier.bundle.manifest.reference
        return "odd" if reference is not None and reference.odd(confidence, found.features) else None

    async def give(self, request_id: str, image: int, label: str) -> GivenFeedback:
        """Hear the true label of an answer.

        Raises:
            ProblemError: no such answer is known, it has no such class, or another label was given before.
        """
        known, sidecar = await self._known(request_id, image)
        if known is None:
            raise ProblemError(
                "no-such-answer",
                "The request_id of an answer of the last day was expected, and the place of an image in its request. "
                "It may have been forgotten, or never answered.",
            )
        label = self.translate(known.tag, label, known.label)
        if label not in known.labels:
            said = f"A class of {known.model} was expected, {label[:100]!r} is none."
            raise ProblemError("no-such-label", f"{said} {await asyncio.to_thread(_hint, label[:100], known.labels)}")
        truth = known.truth or await asyncio.to_thread(self._settle, request_id, image, label, known, sidecar)
        if truth not in (None, label):
            raise ProblemError("feedback-given", "The true label of this answer was said before, and it was another.")
        given = GivenFeedback(known.model, known.tag, known.label, label, truth is None, sidecar is not None)
        if given.new:
            self._counted.labels(known.model.version, "right" if given.right else "wrong").inc()
            self.heard(given)
        return given

    async def accuracy(self) -> list[FeedbackAccuracy]:
        """How often each version was right, since the service started."""
        return await asyncio.to_thread(self._answers.accuracy)

    async def _known(self, request_id: str, image: int) -> tuple[RecordedAnswer | None, Path | None]:
        """An answer, and the JSON file of its upload where that is kept."""
        known = await asyncio.to_thread(self._answers.find, request_id, image)
        if known is None and self._answers.shared:  # another process may just be writing it down
            await asyncio.sleep(1.5 * FLUSH_S)
            known = await asyncio.to_thread(self._answers.find, request_id, image)
        if self._upload_store is None or (known is not None and not known.kept):
            return known, None
        until = time.monotonic() + UNTIL_WRITTEN_S
        while True:
            sidecar = await asyncio.to_thread(storage.find, self._upload_store.folder, request_id, image)
            if sidecar is not None or known is None or time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        upload = await asyncio.to_thread(storage.read, sidecar) if sidecar else None
        if upload is None:
            return known, None
        return self._as_both_say(known, upload), sidecar

    def _as_both_say(self, known: RecordedAnswer | None, upload: Upload) -> RecordedAnswer:
        """An answer as this service remembers it and as stands beside its upload.

        The latter is all there is where the answer is forgotten, or was another replica's with the same folder.
        """
        if known is not None:
            return RecordedAnswer(known.model, known.labels, known.label, known.tag, True, known.truth or upload.truth)
        model = ModelVersion(upload.model, upload.version)
        labels = next((each.labels for each in self._models.all if each.identity == model), self._models.active.labels)
        return RecordedAnswer(model, labels, upload.label, upload.tag, True, upload.truth, remembered=False)

    def _settle(
        self, request_id: str, image: int, label: str, known: RecordedAnswer, sidecar: Path | None
    ) -> str | None:
        """Write a true label down, and count it; waits for the disk.

        Of several that say it at once one counts: the one that wrote into the table, if the answer is in it, and then
        beside the upload, where another replica may write, too.

        Returns:
            None; or the label that somebody else wrote down meanwhile.
        """
        if known.remembered and not self._answers.settle(request_id, image, label):
            found = self._answers.find(request_id, image)
            return (found and found.truth) or label
        try:
            if sidecar is not None and not storage.note(sidecar, label):
                upload = storage.read(sidecar)
                if upload is not None and upload.truth is not None:
                    return upload.truth
        except OSError as error:
            logger.warning("a true label could not be written beside its upload: %s", error)
        self._answers.count(known.model, known.label == label)
        return None


def _hint(label: str, labels: Sequence[str]) -> str:
    """What else may have been meant."""
    near = difflib.get_close_matches(label, labels, n=3) if len(labels) <= MOST_COMPARED else []
    return f"Did you mean {' or '.join(near)}?" if near else "GET /model lists them."
