"""Rollout guards: whether the counts so far are a reason to roll back, or allow a promotion.

Faults that need no statistics (a challenger that cannot be loaded, probabilities that are not finite, three failures in
a row) are seen where requests are answered. The guards here see what shows in many requests only. Together they raise a
false alarm in at most one rollout of 100, over its whole duration and however often the counts are assessed;
bench/guards.py simulates it.
"""

import math
from dataclasses import replace

from lensmith.core.stats import wilson
from lensmith.rollout.assessment import Assessment, GuardResult, GuardState
from lensmith.rollout.comparison import by_class
from lensmith.rollout.latency_guard import (
    LEAST_COMPARED,
    SLOWER,
    TAIL,
    TOO_SLOW,
    WINDOW,
    LatencyGuard,
    beyond,
)
from lensmith.rollout.metrics import ModelCounts, quantile_ms
from lensmith.rollout.sequential_tests import (
    largest_difference,
    least_shift,
    log_evidence,
    log_evidence_of_shift,
    lower_bound,
    shift,
)
from lensmith.rollout.state import CanaryRelease

LEAST_REQUESTS = 500
"""Challenger requests before any guard acts: fewer would only tell about the first minutes."""
LEAST_LABELS = 50
"""Answers with feedback, of each model, before accuracies are compared: the first labels may all be one person's."""
ALLOWED_ERRORS = 0.005
"""Error rate that is no reason to roll back: the service's own objective."""
CLASS_SHIFT = 0.10
"""Largest class shift. A challenger that is better by some points moves answers in all directions, and by less than
this on balance."""
LEAST_AGREEMENT = 0.5
"""In shadow mode: a challenger that contradicts more than every second answer was trained for another task, or has its
labels in the wrong order."""

ALPHA_ERRORS, ALPHA_CLASSES, ALPHA_FEEDBACK, ALPHA_AGREEMENT = 0.005, 0.0015, 0.0015, 0.001
"""Chance of a false alarm over a whole rollout; with the latency guard's 0.1 %, 1 % for all. That of errors is the
largest: they hurt most, and have to be seen within 2,000 requests."""
WATCHED = math.log(20)
"""Evidence from which on a guard is watching, and nothing is promoted: significant at 5 % in a single test."""

MARGIN = 0.01
"""For a promotion: the challenger's error rate is at most this much above the champion's (upper bound)."""
PROMOTED_AGREEMENT = 0.9
"""For an automatic promotion in shadow mode: lower bound of the agreement, since no user has seen the answers."""


class RolloutGuards:
    """Assesses one rollout again and again.

    Only the latency guard depends on earlier assessments: after a restart it waits for three windows.
    """

    def __init__(self, rollout: CanaryRelease) -> None:
        self.rollout = rollout
        self._latency_guard = LatencyGuard(rollout.slo_ms, rollout.shadow)

    def assess(self, champion: ModelCounts, challenger: ModelCounts) -> Assessment:
        """Assess the counts since the rollout began, summed over all replicas; in shadow mode those of copies."""
        self._latency_guard.update(champion, challenger)
        windows = tuple(self._latency_guard.latest)
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
                reason = found.reason
                return Assessment("roll_back", name, reason, guards, champion, challenger, f"{name}: {reason}", windows)
        objection = self._objection(champion, challenger, guards)
        if reason := objection or self._not_automatic(challenger):
            return Assessment("hold", "", reason, guards, champion, challenger, objection, windows)
        proof = _proof(champion, challenger, self._is_compared(champion))
        return Assessment("promote", "proven", proof, guards, champion, challenger, "", windows)

    def _is_compared(self, champion: ModelCounts) -> bool:
        """Whether the champion has answered enough beside the challenger to compare both."""
        return champion.requests >= LEAST_COMPARED and (self.rollout.share < 100 or self.rollout.shadow)

    def _errors(self, champion: ModelCounts, challenger: ModelCounts) -> GuardResult:
        if challenger.requests < LEAST_REQUESTS:
            return _too_little(challenger)
        failed, requests = challenger.failed, challenger.requests
        summary = f"{_rate(challenger)} of the challenger's requests failed, {_rate(champion)} of the champion's"
        # Its own rate has to be more than the service's objective allows. And each failure is the challenger's as often
        # as requests are, unless it fails more often than the champion: also through hours in which both fail.
        evidence, is_compared = log_evidence(failed, challenger.answered, ALLOWED_ERRORS), self._is_compared(champion)
        if is_compared:
            evidence = min(evidence, log_evidence(failed, champion.failed, requests / (requests + champion.requests)))
        at_least = lower_bound(failed, requests, ALPHA_ERRORS) if evidence >= WATCHED else 0.0
        and_champions = " and the champion's" if is_compared else ""
        excess = f": at least {at_least:.2%}, more than {ALLOWED_ERRORS:.1%}{and_champions}"
        found = _by_evidence(evidence, ALPHA_ERRORS, summary, excess)
        return found if is_compared else _without_comparison(found, champion)

    def _latency(self, challenger: ModelCounts) -> GuardResult:
        windows, over = self._latency_guard.latest, self._latency_guard.over
        if challenger.requests < LEAST_REQUESTS:
            return _too_little(challenger)
        is_compared = all(window.slow is not None for window in windows)
        summary = f"In {over} of the last {len(windows)} windows the P99 was over {self.rollout.slo_ms:g} ms"
        summary += f" and the work's over {SLOWER} × the champion's" if is_compared else ""
        if over >= TOO_SLOW:
            slowest = max(windows, key=lambda window: (window.over, window.late))
            excess = f"up to {slowest.late:.1%} of requests late"
            excess += f", {slowest.slow:.1%} slow work" if slowest.slow is not None else ""
            return GuardResult("over", f"{summary}: {excess}.", over, TOO_SLOW)
        if len(windows) < TOO_SLOW:
            reason = f"{len(windows)} of {TOO_SLOW} windows of {WINDOW} requests so far."
            return GuardResult("too little data", reason, over, TOO_SLOW)
        if not any(window.requests for window in windows):
            return GuardResult("too little data", "The challenger has answered no request whose time was taken.")
        found = GuardResult("watching" if over == TOO_SLOW - 1 else "fine", f"{summary}.", over, TOO_SLOW)
        return found if is_compared else _without_comparison(found)

    def _classes(self, champion: ModelCounts, challenger: ModelCounts) -> GuardResult:
        if self.rollout.sticky == "caller":
            reason = "Other callers send other images; with a split by caller, classes differ anyway."
            return GuardResult("not judged", reason)
        if challenger.requests < LEAST_REQUESTS:
            return _too_little(challenger)
        if not challenger.classes:
            return GuardResult("too little data", "The challenger has answered no image.")
        if not (self._is_compared(champion) and champion.classes):
            return _without_comparison(GuardResult("fine", "No objective says how often a class may be."), champion)
        first, second = by_class(challenger, champion)
        moved = shift(first, second)
        summary = f"{moved:.1%} of answers would have to change class for both distributions to be the same"
        # Most assessments end here; small differences need no evidence, since every better model makes some.
        if least_shift(first, second) <= CLASS_SHIFT:
            return GuardResult("fine", f"{summary}.")
        evidence = log_evidence_of_shift(first, second)
        excess = f", certainly more than {CLASS_SHIFT:.0%}, and chance does not explain it"
        return _by_evidence(evidence, ALPHA_CLASSES, summary, excess, "; so far chance may explain it")

    def _feedback(self, champion: ModelCounts, challenger: ModelCounts) -> GuardResult:
        labels, champion_labels, known = challenger.labels, champion.labels, challenger.known + champion.known
        left_out = f" Left out: {known} on images that a model knows." if known else ""
        if min(labels, champion_labels) < LEAST_LABELS:
            reason = f"{labels} and {champion_labels} answers with feedback, {LEAST_LABELS} each are needed.{left_out}"
            # Labels of the challenger's answers alone say something, but not whether it is worse.
            return GuardResult("not compared" if labels >= LEAST_LABELS else "too little data", reason)
        summary = (
            f"By feedback {_percent(challenger.right, labels)} of the challenger's answers are correct, "
            f"{_percent(champion.right, champion_labels)} of the champion's"
        )
        evidence = log_evidence(challenger.wrong, champion.wrong, labels / (labels + champion_labels))
        found = _by_evidence(evidence, ALPHA_FEEDBACK, summary, ", and chance does not explain it")
        return replace(found, reason=f"{found.reason}{left_out}")

    def _agreement(self, challenger: ModelCounts) -> GuardResult:
        agreed, compared = challenger.agreed, challenger.compared
        if compared < LEAST_REQUESTS:
            return GuardResult("too little data", f"{compared} of {LEAST_REQUESTS} images answered by both.")
        summary = f"Both agree on {_percent(agreed, compared)} of {compared:,} images"
        evidence = log_evidence(compared - agreed, agreed, 1 - LEAST_AGREEMENT)
        return _by_evidence(evidence, ALPHA_AGREEMENT, summary, f", which is less than {LEAST_AGREEMENT:.0%}")

    def _objection(self, champion: ModelCounts, challenger: ModelCounts, guards: dict[str, GuardResult]) -> str:
        """The reason against a promotion, whoever promotes; empty where there is none."""
        rollout = self.rollout
        if challenger.requests < LEAST_REQUESTS:
            return f"{challenger.requests:,} of {LEAST_REQUESTS:,} challenger requests so far."
        # Whoever gives the challenger every request has decided that the objectives alone count.
        is_alone = rollout.share == 100 and not rollout.shadow
        objections = [
            f"{name}: {found.state}. {found.reason}"
            for name, found in guards.items()
            # Not every service gets feedback, so its lack is no objection.
            if found.state == "watching"
            or (found.state == "too little data" and name != "feedback")
            or (found.state == "not compared" and not is_alone)
        ]
        if objections:
            return " ".join(objections)
        if self._is_compared(champion):
            more, beyond_what = _largest_excess(champion, challenger), "above the champion's"
        else:
            more, beyond_what = wilson(challenger.failed, challenger.requests)[1], "above 0"
        if more >= MARGIN:
            return f"The challenger's error rate may lie {more:.2%} {beyond_what}, {MARGIN:.1%} is too much."
        if not self._is_fast_enough(champion, challenger):
            return f"The challenger's P99 is over {rollout.slo_ms:g} ms and its work slower than the champion's."
        agreed = wilson(challenger.agreed, challenger.compared)[0]
        if rollout.shadow and agreed < PROMOTED_AGREEMENT:
            return f"Both agree on {agreed:.1%} of images at least, in shadow mode {PROMOTED_AGREEMENT:.0%} is needed."
        return ""

    def _not_automatic(self, challenger: ModelCounts) -> str:
        """The reason why a challenger without objections is not promoted automatically; empty where it is."""
        if challenger.requests < self.rollout.promote_after:
            return f"{challenger.requests:,} of {self.rollout.promote_after:,} challenger requests so far."
        return "" if self.rollout.auto_promote else "Nothing is wrong; automatic promotion is off."

    def _is_fast_enough(self, champion: ModelCounts, challenger: ModelCounts) -> bool:
        measured = challenger.work if self.rollout.shadow or not challenger.latency else challenger.latency
        if not measured:
            return False
        in_time = beyond(measured, self.rollout.slo_ms) <= TAIL * measured.total()
        if in_time or not champion.work:
            return in_time
        limit_ms = SLOWER * quantile_ms(champion.work, 1 - TAIL)
        return beyond(challenger.work, limit_ms) <= TAIL * challenger.work.total()


def _by_evidence(evidence: float, alpha: float, summary: str, excess: str, doubt: str = "") -> GuardResult:
    """`over` where the evidence rejects the null hypothesis at level alpha, else `watching` or `fine`."""
    limit, shown = -math.log(alpha), round(max(0.0, evidence), 2)  # -inf is no number of JSON
    if evidence >= limit:
        return GuardResult("over", f"{summary}{excess}.", shown, round(limit, 2))
    return GuardResult("watching" if evidence >= WATCHED else "fine", f"{summary}{doubt}.", shown, round(limit, 2))


def _without_comparison(found: GuardResult, champion: ModelCounts | None = None) -> GuardResult:
    """A result for which the champion answered too little: never `fine`, as only the objective could be checked."""
    answered = f"{champion.requests:,}" if champion else f"fewer than {LEAST_COMPARED}"
    lacking = f"The champion answered {answered} requests meanwhile, {LEAST_COMPARED} are needed to compare both."
    state: GuardState = "not compared" if found.state == "fine" else found.state
    return replace(found, state=state, reason=f"{found.reason} {lacking}")


def _too_little(challenger: ModelCounts) -> GuardResult:
    return GuardResult("too little data", f"{challenger.requests} of {LEAST_REQUESTS} challenger requests so far.")


def _largest_excess(champion: ModelCounts, challenger: ModelCounts) -> float:
    """Upper bound of the challenger's error rate minus the champion's."""
    return largest_difference(challenger.failed, challenger.requests, champion.failed, champion.requests)


def _proof(champion: ModelCounts, challenger: ModelCounts, is_compared: bool) -> str:
    if not is_compared:
        return (
            f"After {challenger.requests:,} challenger requests, which are all there are, the service's objectives "
            f"hold; {_rate(challenger)} failed. There was no champion to compare with."
        )
    return (
        f"After {challenger.requests:,} challenger requests no guard objects; {_rate(challenger)} failed, "
        f"{_rate(champion)} of the champion's, a difference below {max(_largest_excess(champion, challenger), 0):.2%}."
    )


def _rate(counts: ModelCounts) -> str:
    return _percent(counts.failed, counts.requests)


def _percent(hits: int, trials: int) -> str:
    return f"{hits / trials:.2%}" if trials else "none"
