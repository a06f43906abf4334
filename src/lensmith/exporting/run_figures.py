"""The run's own figures of its best epoch, which the exported network and its engines are held against.

Parity compares a graph with the network that is exported; it cannot tell whether that is the network that the run
validated. So the images of the validation part are compared with what the run reported, before anything is written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binom

from lensmith.data.image_set import Sample
from lensmith.errors import ParityError
from lensmith.inference.selection import DEFAULT_MAX_DROP_PP
from lensmith.training.checkpointing import CORRECT, LOGITS, PATHS
from lensmith.training.run_dir.run import Run
from lensmith.training.validate import ModelOutputs

TIES = 1e-3
"""Share of answers that fp32 may change by summing in another order: those with two classes level at the top."""

CHANCE = 1e-3
"""Probability of more changed answers than `most_by_chance`, if nothing but rounding changes them."""

LOSS_RATIO, LOSS_NATS = 0.05, 0.02
"""Difference of the loss, relative and in nats, that another machine's decoding and rounding may make together."""


@dataclass(frozen=True)
class RunFigures:
    """Figures that a run reported of its best epoch.

    Attributes:
        epoch: number of the epoch, 1-based.
        accuracy: accuracy on the validation part, 0..1.
        loss: mean cross-entropy on it, in nats; None: it is not known.
        images: number of images in the part, without unreadable ones.
        correct: whether the answer to an image was correct, by the image's path; empty for runs of earlier versions.
        logits: float32 (N, C), logits of the N images of `correct`, in its order; None: the run did not store them.
    """

    epoch: int
    accuracy: float
    loss: float | None
    images: int
    correct: dict[str, bool]
    logits: torch.Tensor | None = None

    @classmethod
    def of(cls, run: Run, best: dict[str, Any]) -> RunFigures | None:
        """The figures of a run; None where it validated nothing.

        Args:
            run: the run.
            best: the content of its best checkpoint.
        """
        correct: dict[str, bool] = {}
        logits = None
        if (answers := best.get("validation")) is not None:
            correct = dict(zip(answers[PATHS], answers[CORRECT].tolist(), strict=True))
            logits = answers.get(LOGITS)
        images = len(correct) or len(run.images.part("val"))
        lines = [line for line in run.history() if line["epoch"] == best["epoch"]]
        if lines and lines[-1]["val_accuracy"] is not None:
            return cls(best["epoch"], lines[-1]["val_accuracy"], lines[-1]["val_loss"], images, correct, logits)
        if correct:  # the checkpoint alone tells, as where events.jsonl is gone
            return cls(best["epoch"], sum(correct.values()) / images, None, images, correct, logits)
        if images:
            print(
                f"not compared with what the run reported: epoch {best['epoch']} is not in {run.events}",
                file=sys.stderr,
            )
        return None

    def outputs_of(self, samples: Sequence[Sample]) -> ModelOutputs | None:
        """The network's outputs for samples, as the run validated it; None where it did not store all of them."""
        row_of = {path: row for row, path in enumerate(self.correct)}
        rows = [row_of.get(sample.path) for sample in samples]
        if self.logits is None or None in rows:
            return None
        labels = torch.tensor([sample.label for sample in samples])
        return ModelOutputs(self.logits[rows], labels, list(range(len(samples))), [])

    def correct_of(self, paths: Sequence[str], otherwise: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether the run's answers to images were correct, bool (N,).

        Args:
            paths: N paths of the images.
            otherwise: bool (N,), taken for images that the run did not answer, or did not store the answers to.
        """
        pairs = zip(paths, otherwise.tolist(), strict=True)
        return np.array([self.correct.get(path, other) for path, other in pairs], dtype=np.bool_)

    def require_network(self, outputs: ModelOutputs, samples: Sequence[Sample], max_drop_pp: float | None) -> float:
        """Refuse a network that does not classify as the run reported.

        Args:
            outputs: the network's outputs in fp32.
            samples: the samples of the outputs, of the validation part.
            max_drop_pp: accuracy that the user lets go, in percentage points; None: only what is chance. Above the
                default another loss is accepted with it.

        Returns:
            The accuracy that is lost by chance, in percentage points, 0 or more.

        Raises:
            ParityError: accuracy or loss differ beyond chance.
        """
        paths = [samples[index].path for index in outputs.indices]
        right = (outputs.logits.argmax(1) == outputs.labels).numpy()
        lost = self._require(paths, right, max_drop_pp or 0.0, "network")
        limit_pp = max_drop_pp or 0.0
        accepted = limit_pp > DEFAULT_MAX_DROP_PP and 100 * lost <= limit_pp * len(right) + 1e-9
        if not accepted and self.loss is not None and len(right) == self.images:
            # What is lost by chance is near a tie, and costs little loss.
            difference = abs(outputs.loss - self.loss)
            if not difference <= LOSS_RATIO * self.loss + LOSS_NATS:  # false of what is no number, too
                raise self._error("network", f"Its loss is {outputs.loss:.4g} on the same images.")
        return 100 * max(0, lost) / max(1, len(right))

    def require_answers(
        self, paths: Sequence[str], right: npt.NDArray[np.bool_], max_drop_pp: float, selected_on: int
    ) -> None:
        """Refuse an engine whose answers are worse than the run reported.

        Args:
            paths: N paths of images of the validation part.
            right: bool (N,), whether the engine's answers are correct.
            max_drop_pp: accuracy that an engine may lose, in percentage points.
            selected_on: number of these images that the engine was selected on; where they were fewer, it may lose more
                on all of them, within three standard errors of a paired comparison.

        Raises:
            ParityError: more accuracy is lost.
        """
        changed = int((self.correct_of(paths, right) != right).sum())
        self._require(paths, right, max_drop_pp, "engine", 3 * changed**0.5 if selected_on < len(right) else 0.0)

    def _require(
        self, paths: Sequence[str], right: npt.NDArray[np.bool_], max_drop_pp: float, what: str, more: float = 0.0
    ) -> int:
        """The number of images that are lost against the figures; fewer than 0 where some are gained.

        Raises:
            ParityError: the number is beyond chance, and beyond `max_drop_pp` and `more` images.
        """
        missing = self.images - len(right)
        most = max(most_by_chance(len(right)), int(max_drop_pp / 100 * len(right) + more + 1e-9))
        expected = [int(self.correct_of(paths, right).sum())]
        if 0 <= missing <= most:  # the figure itself can be compared, too
            expected.append(round(self.accuracy * self.images) - missing)
        lost = max((number - int(right.sum()) for number in expected), key=abs)
        if lost > most or (what == "network" and -lost > most + max(0, missing)):
            raise self._error(
                what,
                f"It has {right.mean():.4f} on {len(right):,} of these images, {abs(lost):,} answers"
                f" {'fewer' if lost > 0 else 'more'} that are correct; {most:,} may be lost.",
            )
        return lost

    def _error(self, what: str, arrived: str) -> ParityError:
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        return ParityError(
            f"The exported {what} was expected to answer the {self.images:,} validation images as the run reported of"
            f" its best epoch {self.epoch}: accuracy {self.accuracy:.4f}{loss}.",
            arrived,
            "No bundle was written. If the images or the checkpoint have changed since, put them back; else train again"
            " with --precision fp32. `lensmith export --max-accuracy-drop POINTS`, with more than"
            f" {DEFAULT_MAX_DROP_PP:g}, accepts the loss.",
        )


def most_by_chance(images: int) -> int:
    """The most answers of one network to so many images that rounding in fp32 may change."""
    return max(1, int(binom.isf(CHANCE, images, TIES)))
