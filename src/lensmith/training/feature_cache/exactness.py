"""Exactness of features: whether rounded ones (bfloat16, float16) are exact enough for the head that learned from them.

How far features may be rounded depends on the head: where images differ little, what separates the classes is as small
as the rounding, and a head learns the rounding instead. So the network answers a probe, some training images, from
rounded and from exact features, and the answers have to be the same but for a few, and as good.
"""

from dataclasses import dataclass

from lensmith.training.validate import ModelOutputs

PROBE_ROWS = 256
"""Training images in the probe."""

CHANGED = 0.04
"""Largest share of the probe whose class may change."""

LOSS_RATIO, LOSS_NATS = 0.1, 0.01
"""Largest difference of the loss, relative and in nats, that both together are allowed."""


@dataclass(frozen=True)
class Exactness:
    """Answers of one network to the same images, from rounded and from exact features.

    Attributes:
        rows: number of images.
        changed: number of images whose likeliest class differs.
        loss: mean cross-entropy with rounded features, in nats.
        exact_loss: mean cross-entropy with exact features, in nats.
    """

    rows: int
    changed: int
    loss: float
    exact_loss: float

    @classmethod
    def of(cls, rounded: ModelOutputs, exact: ModelOutputs) -> "Exactness":
        """Compare two outputs for the same images, but for those that one of them lacks."""
        both = sorted({*rounded.indices} & {*exact.indices})  # a file can be gone in between
        ours, theirs = (_rows(one, both) for one in (rounded, exact))
        changed = int((ours.logits.argmax(1) != theirs.logits.argmax(1)).sum())
        return cls(len(both), changed, ours.loss, theirs.loss)

    @property
    def suffices(self) -> bool:
        """Whether the difference is negligible."""
        # `<=` is false of what is no number, too
        return (
            self.changed <= CHANGED * self.rows
            and abs(self.exact_loss - self.loss) <= LOSS_RATIO * min(self.loss, self.exact_loss) + LOSS_NATS
        )

    def __str__(self) -> str:
        """The difference, for people."""
        return (
            f"with fp32 features {self.changed} of {self.rows} training images get another class,"
            f" and their loss is {self.exact_loss:.3g} instead of {self.loss:.3g}"
        )


def _rows(outputs: ModelOutputs, indices: list[int]) -> ModelOutputs:
    places = {index: place for place, index in enumerate(outputs.indices)}
    taken = [places[index] for index in indices]
    return ModelOutputs(outputs.logits[taken], outputs.labels[taken], indices, [])
