"""The guards object to a faulty challenger, and to nothing else."""

import json
from collections import Counter
from typing import Any

import pytest

from lensmith.rollout.assessment import Assessment
from lensmith.rollout.guards import RolloutGuards
from lensmith.rollout.metrics import ModelCounts, bucket_of
from lensmith.rollout.state import CanaryRelease


def counts(requests: int, failed: int = 0, whole_ms: float = 50, work_ms: float = 20, **more: Any) -> ModelCounts:
    """Counts of equally fast requests, spread evenly over three classes."""
    answered = requests - failed
    third = answered // 3
    given = {
        "answered": answered,
        "failed": failed,
        "latency": Counter({bucket_of(whole_ms): answered}),
        "work": Counter({bucket_of(work_ms): answered}),
        "classes": Counter({0: answered - 2 * third, 1: third, 2: third}),
        **more,
    }
    return ModelCounts(**given)


def rollout(**more: Any) -> CanaryRelease:
    return CanaryRelease(id="flowers-1", name="flowers", champion="1", challenger="2", **more)


def assess(champion: ModelCounts, challenger: ModelCounts, times: int = 10, **more: Any) -> Assessment:
    """The last assessment of a rollout whose counts grow evenly to these."""
    guards = RolloutGuards(rollout(**more))
    for time in range(1, times + 1):
        assessment = guards.assess(part(champion, time, times), part(challenger, time, times))
    return assessment


def part(whole: ModelCounts, numerator: int, denominator: int) -> ModelCounts:
    """A fraction of the counts."""

    def of(value: Any) -> Any:
        if isinstance(value, Counter):
            return Counter({key: of(count) for key, count in value.items()})
        return value * numerator // denominator

    return ModelCounts(**{name: of(value) for name, value in vars(whole).items()})


OTHER_CLASSES = Counter({0: 700, 1: 200, 2: 100})


@pytest.mark.parametrize("failed", [0, 499])
def test_below_500_requests_nothing_is_decided(failed: int) -> None:
    assessment = assess(counts(9000), counts(499, failed=failed))
    assert assessment.action == "hold"
    assert {found.state for found in assessment.guards.values()} == {"too little data"}


@pytest.mark.parametrize(
    ("guard", "champion", "challenger", "more"),
    [
        ("errors", counts(9000, failed=90), counts(1000, failed=60), {}),
        # With all requests there is no champion to compare with: the objective alone decides.
        ("errors", ModelCounts(), counts(1000, failed=60), {"share": 100}),
        ("classes", counts(9000), counts(1000, classes=OTHER_CLASSES), {}),
        # Feedback decides before 500 requests.
        ("feedback", counts(2700, right=540, wrong=60), counts(300, right=10, wrong=60), {}),
        ("agreement", counts(10_000), counts(1000, compared=1000, agreed=300), {"shadow": True}),
    ],
)
def test_a_faulty_challenger_is_rolled_back(
    guard: str, champion: ModelCounts, challenger: ModelCounts, more: dict[str, Any]
) -> None:
    assessment = assess(champion, challenger, **more)
    assert (assessment.action, assessment.guard) == ("roll_back", guard)
    # Assessments depend on the present counts alone: after a restart of the sidecar the result is the same.
    assert RolloutGuards(rollout(**more)).assess(champion, challenger).guard == guard


@pytest.mark.parametrize(
    ("guard", "state", "champion", "challenger", "more"),
    [
        ("errors", "fine", counts(9000, failed=540), counts(1000, failed=60), {}),  # both fail alike
        ("errors", "fine", counts(90_000), counts(10_000, failed=40), {}),  # within the objective
        ("latency", "fine", counts(9000, whole_ms=400), counts(1000, whole_ms=400), {}),  # the work is as fast
        ("latency", "fine", counts(9000), counts(1000, whole_ms=150, work_ms=120), {}),  # within the objective
        ("classes", "fine", counts(90_000), counts(10_000, classes=Counter({0: 3900, 1: 3050, 2: 3050})), {}),
        ("classes", "not judged", counts(9000), counts(1000, classes=OTHER_CLASSES), {"sticky": "caller"}),
        ("feedback", "too little data", counts(2700, right=540, wrong=60), counts(300, wrong=49), {}),
        # Labels of one side are no comparison, and no reason to promote.
        ("feedback", "not compared", counts(9000, wrong=49), counts(9000, wrong=900), {"auto_promote": True}),
        ("feedback", "not compared", counts(9000, known=600), counts(9000, right=600), {"auto_promote": True}),
    ],
)
def test_a_guard_has_nothing_against_a_challenger_that_is_not_at_fault(
    guard: str, state: str, champion: ModelCounts, challenger: ModelCounts, more: dict[str, Any]
) -> None:
    assessment = assess(champion, challenger, times=50, **more)
    assert (assessment.action, assessment.guards[guard].state) == ("hold", state)


SLOW = {"whole_ms": 2000, "work_ms": 1900}
ALONE = {"share": 100, "auto_promote": True, "promote_after": 500}


@pytest.mark.parametrize("champion", [ModelCounts(), counts(19)])
@pytest.mark.parametrize("more", [{"share": 100}, {"share": 50}, {"share": 10, "sticky": "caller"}])
@pytest.mark.parametrize(
    ("guard", "challenger"),
    [("latency", counts(6000, **SLOW)), ("errors", counts(6000, failed=300))],
)
def test_without_a_champion_to_compare_with_the_objectives_alone_roll_back(
    champion: ModelCounts, more: dict[str, Any], guard: str, challenger: ModelCounts
) -> None:
    assessment = assess(champion, challenger, times=60, **more)
    assert (assessment.action, assessment.guard) == ("roll_back", guard)


@pytest.mark.parametrize(
    ("more", "action"),
    [
        (ALONE, "promote"),  # who shares out all requests wants no comparison
        ({**ALONE, "share": 50}, "hold"),
        ({**ALONE, "share": 10, "sticky": "caller"}, "hold"),
    ],
)
def test_no_guard_calls_fine_what_it_could_not_compare(more: dict[str, Any], action: str) -> None:
    assessment = assess(ModelCounts(), counts(6000), times=60, **more)
    assert assessment.action == action
    states = {name: found.state for name, found in assessment.guards.items()}
    assert "fine" not in states.values()
    assert (states["errors"], states["latency"]) == ("not compared", "not compared")
    assert "0 requests meanwhile" in assessment.guards["errors"].reason
    assert (assessment.objection != "") == (action == "hold")
    assert all(window.slow is None for window in assessment.windows)


@pytest.mark.parametrize("share", [10, 100])
def test_a_challenger_that_only_just_keeps_the_objective_of_errors_is_not_promoted_without_comparison(
    share: float,
) -> None:
    assessment = assess(ModelCounts(), counts(1000, failed=6), times=50, **{**ALONE, "share": share})
    assert assessment.action == "hold"


def test_requests_without_times_or_answers_are_too_little_data() -> None:
    challenger = counts(1000, latency=Counter(), work=Counter(), classes=Counter())
    assessment = assess(counts(9000), challenger, times=50, auto_promote=True)
    assert {assessment.guards[name].state for name in ("latency", "classes")} == {"too little data"}
    assert assessment.action == "hold"


def test_a_champion_that_gets_nothing_any_more_is_not_compared_in_later_windows() -> None:
    guards = RolloutGuards(rollout(share=50, auto_promote=True))
    for requests in range(0, 2001, 200):
        champion = counts(min(requests, 600))
        assessment = guards.assess(champion, counts(requests))
    assert assessment.guards["latency"].state == "not compared"
    assert assessment.windows[-1].slow is None
    assert assessment.action == "hold"


def test_what_the_guards_see_is_plain_and_without_infinities() -> None:
    seen = assess(counts(9000), counts(1000), times=50).figures
    assert json.loads(json.dumps(seen, allow_nan=False))["latency_windows"][0]["requests"] == 200
    assert seen["guards"]["errors"]["evidence"] == 0
    assert seen["guards"]["errors"]["limit"] == pytest.approx(5.3, abs=0.01)
    assert (seen["guards"]["latency"]["evidence"], seen["guards"]["latency"]["limit"]) == (0, 3)


def test_the_reason_names_both_error_rates() -> None:
    reason = assess(counts(9000, failed=90), counts(1000, failed=60)).reason
    assert "6.00%" in reason
    assert "1.00%" in reason


def test_a_slow_challenger_is_rolled_back_after_three_windows() -> None:
    slow = counts(650, whole_ms=400, work_ms=120)
    assert assess(counts(5850), part(slow, 500, 650)).action == "hold"
    assessment = assess(counts(5850), slow, times=65)
    assert (assessment.action, assessment.guard) == ("roll_back", "latency")


def test_in_shadow_mode_the_work_is_compared_with_the_objective() -> None:
    copies = counts(1000, work_ms=300, compared=1000, agreed=1000)
    copies.latency.clear()
    assert assess(counts(10_000), copies, times=50, shadow=True).guard == "latency"


def test_counts_of_a_replica_that_vanish_restart_the_windows() -> None:
    guards = RolloutGuards(rollout())
    for requests in (0, 300, 600, 100, 400, 700):
        assessment = guards.assess(counts(9 * requests), counts(requests, whole_ms=400, work_ms=120))
    assert assessment.action == "roll_back"  # two windows before, two after


def test_a_batch_of_one_class_counts_as_one_image() -> None:
    # 30 requests with 64 images each: half of these show one thing, and so did a third of the champion's.
    images = Counter({0: 1200, 1: 360, 2: 360})
    batches = counts(500, failed=470, classes=images)
    assert assess(counts(400), batches, times=1).guards["classes"].state != "over"
    assert assess(counts(400), counts(1920, classes=images), times=1).guards["classes"].state == "over"


def test_a_challenger_is_promoted_after_enough_requests_if_promotion_is_automatic() -> None:
    champion, challenger = counts(9000, failed=9), counts(1000, failed=1)
    assert assess(champion, challenger, times=50).action == "hold"
    assessment = assess(champion, challenger, times=50, auto_promote=True)
    assert (assessment.action, assessment.guard) == ("promote", "proven")
    assert assess(champion, part(challenger, 9, 10), times=50, auto_promote=True).action == "hold"
    assert assess(counts(4500), counts(499), times=50, auto_promote=True, promote_after=10).action == "hold"


def test_a_challenger_that_may_fail_more_often_is_not_promoted() -> None:
    assessment = assess(counts(9000), counts(1000, failed=8), times=50, auto_promote=True)
    assert assessment.action == "hold"
    assert "error rate" in assessment.reason


def test_a_challenger_that_is_slower_than_champion_and_objective_is_not_promoted() -> None:
    slow = counts(1000)
    slow.latency[bucket_of(300)], slow.work[bucket_of(100)] = 15, 15
    assessment = assess(counts(9000), slow, times=50, auto_promote=True)
    assert assessment.action == "hold"
    assert "P99" in assessment.reason


@pytest.mark.parametrize(("agreed", "action"), [(990, "promote"), (800, "hold")])
def test_in_shadow_mode_only_a_challenger_that_agrees_is_promoted(agreed: int, action: str) -> None:
    copies = counts(1000, compared=1000, agreed=agreed)
    assert assess(counts(10_000), copies, times=50, shadow=True, auto_promote=True).action == action


def test_figures_are_plain_values_of_both() -> None:
    found = assess(counts(9000, failed=9, right=80, wrong=20), counts(600, right=55, wrong=5)).figures
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["champion"]["error_rate"] == pytest.approx(0.001)
    low, high = found["challenger"]["accuracy_interval"]
    assert low < 55 / 60 < high
    assert found["guards"]["errors"]["state"] == "fine"


def test_without_any_request_there_are_no_figures() -> None:
    found = RolloutGuards(rollout()).assess(ModelCounts(), ModelCounts())
    assert found.action == "hold"
    assert found.figures["challenger"]["p99_ms"] is None
