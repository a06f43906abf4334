"""Who is let in: what cannot be answered in time is refused at the door, and uploads share a budget of memory."""

from __future__ import annotations

from lensmith.serving.execution.thread_pool import Pool
from lensmith.serving.problems import ProblemError

RETRY = {"retry-after": "1"}
SLACK = 3.0
"""A deadline is at least so many times what one image takes on an idle machine; else nothing would be answered."""
STEP_BYTES = 65_536
"""By so much an upload's share of the budget grows: what the server buffers ahead of the reader."""


class AdmissionControl:
    """The door: admits what is predicted to be answered within its deadline.

    Args:
        pool: asked for its load.
        deadline_s: seconds that a request may take once its upload has arrived.
        image_s: seconds that one image takes alone.
    """

    def __init__(self, pool: Pool, deadline_s: float, image_s: float) -> None:
        self._pool = pool
        self._wanted_s = deadline_s
        self.set_image_time(image_s)

    def set_image_time(self, image_s: float) -> None:
        """Set the deadline for a model whose images take `image_s` seconds alone."""
        self.deadline_s = max(self._wanted_s, SLACK * image_s)

    def open(self, spent_s: float = 0.0) -> bool:
        """Whether a request is let in that has used `spent_s` seconds of its time already."""
        # Where a thread has nothing to do, trying is worth it: only so does the prediction recover from having been
        # too dark.
        return self._pool.idle() or spent_s + self._pool.predicted_s() <= self.deadline_s

    def check(self, spent_s: float = 0.0) -> None:
        """Refuse what could not be answered in time.

        Raises:
            ProblemError: overloaded.
        """
        if not self.open(spent_s):
            raise ProblemError(
                "overloaded",
                f"What waits would take more than the {self.deadline_s * 1000:.0f} ms that an answer may take. "
                "Ask again in a moment.",
                RETRY,
            )


class UploadBudget:
    """Bytes of uploads that may be in memory at once.

    Args:
        total: of them all.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0

    def share(self) -> UploadShare:
        """An upload's share, empty yet; a context manager that gives it back."""
        return UploadShare(self)


class UploadShare:
    """What one upload holds of a budget."""

    __slots__ = ("_budget", "_held")

    def __init__(self, budget: UploadBudget) -> None:
        self._budget = budget
        self._held = 0

    def reserve(self, wanted: int) -> None:
        """Hold at least `wanted` bytes, before they are read.

        Raises:
            ProblemError: so many are not to be had now.
        """
        more = wanted - self._held
        if more <= 0:
            return
        if self._budget.held + more > self._budget.total:
            raise ProblemError(
                "no-memory", "Uploads under way take all the memory set aside for them. Ask again in a moment.", RETRY
            )
        self._budget.held += more
        self._held = wanted

    def __enter__(self) -> UploadShare:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.held -= self._held
        self._held = 0
