"""Seconds that large pictures take to decode on this machine, learnt by kind."""

from lensmith.imaging.decode_cost import DecodeCost

WEIGHT = 0.25
"""Weight of the newest ratio. Large pictures are few, and load changes how long they take."""
OUTLIER = 4.0
"""A ratio counts for at most so many times the mean: a single stall says little about the next picture."""


class DecodeTimes:
    """Ratios between this machine's times and those of the costs, by kind; 1 until a picture of the kind came."""

    def __init__(self) -> None:
        self._ratios: dict[str, float] = {}

    def predicted_s(self, cost: DecodeCost | None) -> float:
        """Predicted seconds of decoding; 0 for a picture that is not large."""
        return 0.0 if cost is None else cost.reference_s * self._ratios.get(cost.kind, 1.0)

    def note(self, cost: DecodeCost, seconds: float) -> None:
        """Learn from a picture that took `seconds` to decode."""
        before = self._ratios.get(cost.kind, 1.0)
        found = min(seconds / cost.reference_s, OUTLIER * before)
        self._ratios[cost.kind] = before + WEIGHT * (found - before)
