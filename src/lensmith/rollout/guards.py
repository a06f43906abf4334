"""The guards of a canary release: whether the counts so far are a reason to go back, or to promote.

What needs no statistics (a challenger that cannot be loaded, answers that are no numbers, three failures in a row) is
seen where requests are answered. Here is what shows in many requests only. All guards merge raise a false alarm in
at most one release of 100, over its whole duration and however often one looks; bench/guards.py tries it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from lensmith.rollout.comparison import by_class, figures
from lensmith.rollout.latency_guard import SLOWER, TAIL, TOO_SLOW, WINDOW, LatencyGuard, beyond
from lensmith.rollout.metrics import ModelCounts, quantile_ms
from lensmith.rollout.sequential_tests import (
    largest_difference,
    log_evidence,
    log_evidence_of_shift,
    lower_bound,
    shift,
    wilson,
)
from lensmith.rollout.state import CanaryRelease

LEAST_REQUESTS = 500
"""Challenger requests before anything is judged by statistics: less would be a judgement on the first minutes."""
LEAST_LABELS = 50
"""Answers with feedback, of each model, before accuracies are compared: the first to label may be one person."""
ALLOWED_ERRORS = 0.005
"""Error rate that is no reason to go back: the service's own objective."""
CLASS_SHIFT = 0.10
"""Share of answers that would have to move for the distributions over classes to be the same. A challenger that is
better by some points moves answers in all directions, and by less than this on balance."""
LEAST_AGREEMENT = 0.5
"""In shadow mode: a challenger that contradicts more than every second answer is another task's, or its labels are
in the wrong order."""

ALPHA_ERRORS, ALPHA_CLASSES, ALPHA_FEEDBACK, ALPHA_AGREEMENT = 0.005, 0.0015, 0.0015, 0.001
"""Chance of a false alarm over a whole release; with the latency's 0.1 % (see `latency_guard`) 1 % for all.
Errors have the most: they hurt most, and are wanted to be seen within 2,000 requests."""
WATCHED = math.log(20)
"""Evidence from which on a guard is watching, and nothing is promoted: what one test at 5 % would call significant."""

MARGIN = 0.01
"""By how much the challenger's error rate may lie above the champion's at most (upper bound) to be promoted."""
PROMOTED_AGREEMENT = 0.9
"""In shadow mode: lower bound of the agreement to be promoted by itself, since no user has seen its answers."""

GuardState = Literal["too little data", "fine", "watching", "over", "not judged"]


@dataclass(frozen=True)
class GuardResult:
    """What one guard says.

    Attributes:
        state: `over` is a reason to go back; `not judged` where it does not apply to this release.
        reason: the numbers, in words.
    """

    state: GuardState
    reason: str


@dataclass(frozen=True)
class Assessment:
    """What one look comes to.

    Attributes:
        action: what should be done.
        guard: the guard that is the reason to go back, `proven` for a promotion, or empty.
        reason: the numbers, in words.
        guards: what each guard says.
        champion: its counts.
        challenger: its counts.
    """

    action: Literal["hold", "roll_back", "promote"]
    guard: str
    reason: str
    guards: dict[str, GuardResult]
    champion: ModelCounts
    challenger: ModelCounts

    @cached_property
    def figures(self) -> dict[str, Any]:
        """`lensmith.rollout.comparison.figures`, and each guard's state and reason under `guards`."""
        said = {name: {"state": found.state, "reason": found.reason} for name, found in self.guards.items()}
        return {**figures(self.champion, self.challenger), "guards": said}


class RolloutGuards:
    """Judges one release, look by look.

    Only the latency guard remembers earlier looks. A guard that starts anew judges all else as the one before, and
    waits for three windows.

    Args:
        rollout: what was begun.
    """

    def __init__(self, rollout: CanaryRelease) -> None:
        self.rollout = rollout
        self._windows = LatencyGuard(rollout.slo_ms, rollout.shadow)

    def look(self, champion: ModelCounts, challenger: ModelCounts) -> Assessment:
        """Judge the counts since the release began, summed over all replicas.

        Args:
            champion: what it answered in the same time.
            challenger: what it answered, or worked on as copies.
        """
        self._windows.take(champion, challenger)
        guards = {
            "errors": self._errors(champion, challenger),
            "latency": self._latency(challenger),
            "classes": self._classes(champion, challenger),
            "feedback": self._feedback(champion, challenger),
        }
        if self.rollout.shadow:
            guards["agreement"] = self._agreement(challenger)
        for name, found in guards.items():
            if found.state == "over":
                return Assessment("roll_back", name, found.reason, guards, champion, challenger)
        wanting = self._wanting(champion, challenger, guards)
        if wanting:
            return Assessment("hold", "", wanting, guards, champion, challenger)
        return Assessment("promote", "proven", _proof(champion, challenger), guards, champion, challenger)

    def _errors(self, champion: ModelCounts, challenger: ModelCounts) -> GuardResult:
        if challenger.requests < LEAST_REQUESTS:
            return _too_little(challenger)
        failed, of = challenger.failed, challenger.requests
        said = f"{_percent(failed, of)} of the challenger's requests failed, {_rate(champion)} of the champion's"
        # Its own rate has to be more than the service's objective allows. And each failure is the challenger's as often
        # as requests are, unless it fails more often than the champion: through hours in which both fail, too.
        evidence = log_evidence(failed, challenger.answered, ALLOWED_ERRORS)
        if self.rollout.share < 100 or self.rollout.shadow:
            evidence = min(evidence, log_evidence(failed, champion.failed, of / (of + champion.requests)))
        if evidence >= -math.log(ALPHA_ERRORS):
            at_least = lower_bound(failed, of, ALPHA_ERRORS)
            return GuardResult(
                "over", f"{said}: at least {at_least:.2%}, more than {ALLOWED_ERRORS:.1%} and the champion's."
            )
        return GuardResult("watching" if evidence >= WATCHED else "fine", f"{said}.")

    def _latency(self, challenger: ModelCounts) -> GuardResult:
        seen, over = len(self._windows.latest), self._windows.over
        if challenger.requests < LEAST_REQUESTS:
            return _too_little(challenger)
        said = (
            f"In {over} of the last {seen} windows the P99 was over {self.rollout.slo_ms:g} ms "
            f"and the work's over {SLOWER} × the champion's"
        )
        if over >= TOO_SLOW:
            slowest = max(self._windows.latest, key=lambda window: (window.over, window.late))
            return GuardResult(
                "over", f"{said}: up to {slowest.late:.1%} of requests late, {slowest.slow:.1%} slow work."
            )
        if seen < TOO_SLOW:
            return GuardResult("too little data", f"{seen} of {TOO_SLOW} windows of {WINDOW} requests so far.")
        return GuardResult("watching" if over == TOO_SLOW - 1 else "fine", f"{said}.")

    def _classes(self, champion: ModelCounts, challenger: ModelCounts) -> GuardResult:
        if self.rollout.sticky == "caller":
            return GuardResult(
                "not judged", "Other callers send other images; shared out by caller, classes differ anyway."
            )
        if challenger.requests < LEAST_REQUESTS:
            return _too_little(challenger)
        first, second = by_class(challenger, champion)
        moved = shift(first, second)
        said = f"{moved:.1%} of answers would have to change class for both distributions to be the same"
        # Most looks end here; evidence for small differences is of no use, since every better model makes some.
        if moved <= CLASS_SHIFT:
            return GuardResult("fine", f"{said}.")
        evidence = log_evidence_of_shift(first, second)
        if evidence >= -math.log(ALPHA_CLASSES):
            return GuardResult("over", f"{said}, more than {CLASS_SHIFT:.0%}, and chance does not explain it.")
        return GuardResult("watching" if evidence >= WATCHED else "fine", f"{said}; so far chance may explain it.")

    def _feedback(self, champion: ModelCounts, challenger: ModelCounts) -> GuardResult:
        mine, theirs = challenger.right + challenger.wrong, champion.right + champion.wrong
        if min(mine, theirs) < LEAST_LABELS:
            return GuardResult(
                "too little data", f"{mine} and {theirs} answers with feedback, {LEAST_LABELS} each are needed."
            )
        said = (
            f"By feedback {_percent(challenger.right, mine)} of the challenger's answers are right, "
            f"{_percent(champion.right, theirs)} of the champion's"
        )
        evidence = log_evidence(challenger.wrong, champion.wrong, mine / (mine + theirs))
        if evidence >= -math.log(ALPHA_FEEDBACK):
            return GuardResult("over", f"{said}, and chance does not explain it.")
        return GuardResult("watching" if evidence >= WATCHED else "fine", f"{said}.")

    def _agreement(self, challenger: ModelCounts) -> GuardResult:
        if challenger.compared < LEAST_REQUESTS:
            return GuardResult(
                "too little data", f"{challenger.compared} of {LEAST_REQUESTS} images worked on by both."
            )
        differed = challenger.compared - challenger.agreed
        said = f"Both agree on {_percent(challenger.agreed, challenger.compared)} of {challenger.compared:,} images"
        evidence = log_evidence(differed, challenger.agreed, 1 - LEAST_AGREEMENT)
        if evidence >= -math.log(ALPHA_AGREEMENT):
            return GuardResult("over", f"{said}, which is less than {LEAST_AGREEMENT:.0%}.")
        return GuardResult("watching" if evidence >= WATCHED else "fine", f"{said}.")

    def _wanting(self, champion: ModelCounts, challenger: ModelCounts, guards: dict[str, GuardResult]) -> str:
        """What stands against a promotion; empty where nothing does."""
        rollout = self.rollout
        needed = max(rollout.promote_after, LEAST_REQUESTS)
        if challenger.requests < needed:
            return f"{challenger.requests:,} of {needed:,} challenger requests so far."
        for name, found in guards.items():
            # Labels are a gift: without them a release can be judged all the same.
            if found.state == "watching" or (found.state == "too little data" and name != "feedback"):
                return f"{name}: {found.state}. {found.reason}"
        more = largest_difference(challenger.failed, challenger.requests, champion.failed, champion.requests)
        if more >= MARGIN:
            return f"The challenger's error rate may lie {more:.2%} above the champion's, {MARGIN:.1%} is too much."
        if not self._fast_enough(champion, challenger):
            return f"The challenger's P99 is over {rollout.slo_ms:g} ms and its work slower than the champion's."
        if rollout.shadow:
            agreed = wilson(challenger.agreed, challenger.compared)[0]
            if agreed < PROMOTED_AGREEMENT:
                return (
                    f"Both agree on {agreed:.1%} of images at least, in shadow mode {PROMOTED_AGREEMENT:.0%} is needed."
                )
        return "" if rollout.auto_promote else "Nothing is wrong; promotion by itself is off."

    def _fast_enough(self, champion: ModelCounts, challenger: ModelCounts) -> bool:
        measured = challenger.work if self.rollout.shadow or not challenger.latency else challenger.latency
        in_time = beyond(measured, self.rollout.slo_ms) <= TAIL * measured.total()
        if in_time or not champion.work:
            return in_time
        limit_ms = SLOWER * quantile_ms(champion.work, 1 - TAIL)
        return beyond(challenger.work, limit_ms) <= TAIL * challenger.work.total()


def _too_little(challenger: ModelCounts) -> GuardResult:
    return GuardResult("too little data", f"{challenger.requests} of {LEAST_REQUESTS} challenger requests so far.")


def _proof(champion: ModelCounts, challenger: ModelCounts) -> str:
    more = largest_difference(challenger.failed, challenger.requests, champion.failed, champion.requests)
    return (
        f"After {challenger.requests:,} challenger requests no guard objects; {_rate(challenger)} failed, "
        f"{_rate(champion)} of the champion's, a difference below {max(more, 0):.2%}."
    )


def _rate(counts: ModelCounts) -> str:
    return _percent(counts.failed, counts.requests)


def _percent(hits: int, trials: int) -> str:
    return f"{hits / trials:.2%}" if trials else "none"


__all__ = ["Assessment", "GuardResult", "GuardState", "RolloutGuards", "figures"]
