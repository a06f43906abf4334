"""Feedback on answers (true labels, online accuracy), and active learning: uploads stored for labelling."""

import asyncio
import difflib
import logging
import os
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter
from starlette.requests import Request

from lensmith.config import ServeSettings
from lensmith.core.labels import canonical_label, matched_label
from lensmith.core.locks import LockTimeoutError
from lensmith.feedback import storage
from lensmith.feedback.storage import Reason, Upload
from lensmith.imaging.preprocessing import Tensor
from lensmith.serving.execution.admission import RETRY
from lensmith.serving.execution.loaded_model import LoadedModel, ModelVersion, TimedPrediction
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.feedback.answer_store import FLUSH_S, AnswerStore, GivenAnswer, RecordedAnswer
from lensmith.serving.feedback.upload_store import UploadStore
from lensmith.serving.metrics import SHARED_FOLDER
from lensmith.serving.problems import ProblemError
from lensmith.serving.rollout.split import ROLE, CanarySplit
from lensmith.serving.schema import FeedbackResponse, ModelName

logger = logging.getLogger(__name__)

TOP_STORED = 5
"""Classes that are stored with an upload."""
MOST_COMPARED = 1000
"""Largest number of classes in which a similar label is searched for: that takes 10 ms."""
UNTIL_WRITTEN_S = 2.0
"""Longest wait for an upload whose feedback came before it was on disk, in seconds."""


class Feedback:
    """Records answers, selects uploads for labelling, and takes true labels.

    Raises:
        ServiceError: uploads are to be stored where nothing can be written.
    """

    def __init__(
        self,
        models: ModelManager,
        settings: ServeSettings,
        registry: CollectorRegistry,
        split: CanarySplit | None = None,
    ) -> None:
        self._models = models
        self._split = split
        self._below, self._share = settings.keep_below, settings.keep_share
        shared = os.environ.get(SHARED_FOLDER)
        self._answers = AnswerStore(settings.feedback_answers, Path(shared) if shared else None)
        self._upload_store = UploadStore(settings.keep, settings, registry) if settings.keep else None
        self._counted = Counter(
            "lensmith_feedback",
            "Answers with feedback, by version of the model and by whether the answer was right.",
            ["version", "outcome"],
            registry=registry,
        )

    def begin(self) -> None:
        """Start the threads that write."""
        self._answers.begin()
        if self._upload_store is not None:
            self._upload_store.begin()

    def close(self) -> None:
        """Write what is queued, and stop the threads; waits for the disk."""
        self._answers.close()
        if self._upload_store is not None:
            self._upload_store.close()

    def record_answer(
        self, request: Request, model: LoadedModel, image: bytes | Tensor, found: TimedPrediction, index: int
    ) -> None:
        """Record an answer, and store its upload where a true label would be informative (active learning).

        Args:
            request: the request that was answered.
            model: model that answered.
            image: encoded image, or float32 (3, S, S), preprocessed, which is never stored.
            found: prediction for the image.
            index: index of the image in its request, from 0 on.
        """
        state = request.scope["state"]
        request_id, tag, top = state["request_id"], state.get(ROLE, ""), found.prediction.top[0]
        is_stored, is_known = False, self._split is not None and self._split.knows(tag, found.file_hash)
        if self._upload_store is not None and isinstance(image, bytes) and (reason := self._reason(model, found)):
            upload = Upload(
                request_id=request_id,
                image=index,
                at=datetime.now(UTC),
                model=model.name,
                version=model.version,
                label=top.label,
                confidence=top.confidence,
                abstained=found.prediction.abstained,
                top=tuple((each.label, each.confidence) for each in found.prediction.top[:TOP_STORED]),
                reason=reason,
                tag=tag,
                known=is_known,
            )
            is_stored = self._upload_store.offer(upload, image)
        self._answers.record(
            GivenAnswer(
                request_id, index, model.identity, model.labels, top.class_id, tag, is_known, is_stored, time.time()
            )
        )

    def _reason(self, model: LoadedModel, found: TimedPrediction) -> Reason | None:
        """The reason to store an upload: a random sample, low confidence, or out-of-distribution; None: not stored."""
        # Drawn before anything else, so that these are a fair sample of all.
        if self._share and random.random() < self._share:
            return "random"
        confidence = found.prediction.top[0].confidence
        if found.prediction.abstained or confidence < self._below:
            return "unsure"
        reference = model.classifier.bundle.manifest.reference
        return "odd" if reference is not None and reference.odd(confidence, found.features) else None

    async def give(self, request_id: str, image: int, label: str) -> FeedbackResponse:
        """Take the true label of an answer.

        Args:
            request_id: identifier of the request.
            image: index of the image in its request, from 0 on.
            label: true label.

        Raises:
            ProblemError: no such answer is recorded, the model has no such class, or another label was sent before.
        """
        with _away():
            answer, upload_json = await self._find(request_id, image)
        if answer is None:
            raise ProblemError(
                "no-such-answer",
                "The request_id of an answer of the last day was expected, and the index of an image in its request. "
                "The answer may have been forgotten, or never given.",
            )
        if self._split is not None:
            label = self._split.own_label(answer.tag, label, answer.label)
        if label not in answer.labels:
            typed, label = label, canonical_label(label)
            if self._split is not None:
                label = self._split.own_label(answer.tag, label, answer.label)
            found = await asyncio.to_thread(matched_label, label, answer.labels)
            label = typed if found is None else found
        if label not in answer.labels:
            expected = f"A class of {answer.model} was expected, {label[:100]!r} is none."
            hint = await asyncio.to_thread(_hint, label[:100], answer.labels)
            raise ProblemError("no-such-label", f"{expected} {hint}")
        with _away():
            truth = answer.truth or await asyncio.to_thread(self._settle, request_id, image, label, answer, upload_json)
        if truth not in (None, label):
            raise ProblemError("feedback-given", "Another true label was sent for this answer before.")
        given = FeedbackResponse(
            label=label,
            answered=answer.label,
            right=answer.label == label,
            new=truth is None,
            noted=upload_json is not None,
            model=ModelName(**answer.model._asdict()),
        )
        if given.new:
            self._counted.labels(answer.model.version, "right" if given.right else "wrong").inc()
            if self._split is not None:
                self._split.count_feedback(answer.tag, given.right, answer.known)
        return given

    async def counts(self) -> list[tuple[ModelVersion, int, int]]:
        """Each version with its right and wrong answers, by feedback since the service started."""
        with _away():
            return await asyncio.to_thread(self._answers.counts)

    async def _find(self, request_id: str, image: int) -> tuple[RecordedAnswer | None, Path | None]:
        """An answer, and the JSON file of its upload where that is stored."""
        answer = await asyncio.to_thread(self._answers.find, request_id, image)
        if answer is None and self._answers.shared:  # another process may be writing it at the moment
            await asyncio.sleep(1.5 * FLUSH_S)
            answer = await asyncio.to_thread(self._answers.find, request_id, image)
        if self._upload_store is None or (answer is not None and not answer.stored):
            return answer, None
        until = time.monotonic() + UNTIL_WRITTEN_S
        while True:
            upload_json = await asyncio.to_thread(storage.find, self._upload_store.folder, request_id, image)
            if upload_json is not None or answer is None or time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        upload = await asyncio.to_thread(storage.read, upload_json) if upload_json else None
        if upload is None:
            return answer, None
        return self._combined(answer, upload), upload_json

    def _combined(self, answer: RecordedAnswer | None, upload: Upload) -> RecordedAnswer:
        """An answer as recorded by this service, and beside its upload.

        Only the upload is left where the answer is forgotten, or was another replica's with the same folder.
        """
        if answer is not None:
            return replace(answer, truth=answer.truth or upload.truth)
        model = ModelVersion(upload.model, upload.version)
        labels = next((each.labels for each in self._models.all if each.identity == model), self._models.active.labels)
        return RecordedAnswer(model, labels, upload.label, upload.tag, upload.known, True, upload.truth, in_table=False)

    def _settle(
        self, request_id: str, image: int, label: str, answer: RecordedAnswer, upload_json: Path | None
    ) -> str | None:
        """Write a true label into the table and beside the upload, and count it; waits for the disk.

        Of several callers at once one counts: the first in the table, if the answer is in it, and then the first beside
        the upload, where another replica may also write.

        Returns:
            None; or the label that another caller wrote meanwhile.
        """
        if answer.in_table and not self._answers.settle(request_id, image, label):
            found = self._answers.find(request_id, image)
            return (found and found.truth) or label
        try:
            if upload_json is not None and not storage.write_truth(upload_json, label):
                upload = storage.read(upload_json)
                if upload is not None and upload.truth is not None:
                    return upload.truth
        except OSError as error:
            logger.warning("a true label could not be written beside its upload: %s", error)
        self._answers.count(answer.model, answer.label == label)
        return None


@contextmanager
def _away() -> Iterator[None]:
    """Translate the fault of a disk that is full, gone or damaged; the log has it, see `AnswerStore`."""
    try:
        yield
    except (sqlite3.Error, OSError, LockTimeoutError) as error:
        logger.warning("feedback failed: %s", error)
        detail = "The answers of the last day cannot be read or written for now. Send the label again later."
        raise ProblemError("feedback-away", detail, RETRY) from error


def _hint(label: str, labels: Sequence[str]) -> str:
    """A sentence with the labels that may have been meant."""
    near = difflib.get_close_matches(label, labels, n=3) if len(labels) <= MOST_COMPARED else []
    return f"Did you mean {' or '.join(near)}?" if near else "GET /model lists them."
