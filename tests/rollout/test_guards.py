"""The guards object to what is wrong, and to nothing else."""

import json
from collections import Counter
from typing import Any

import pytest

from lensmith.rollout.guards import Assessment, RolloutGuards
from lensmith.rollout.metrics import ModelCounts, bucket_of
from lensmith.rollout.state import CanaryRelease


def counts(requests: int, failed: int = 0, whole_ms: float = 50, work_ms: float = 20, **more: Any) -> ModelCounts:
    """So many requests, all as fast, over three classes evenly."""
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


def last_look(champion: ModelCounts, challenger: ModelCounts, looks: int = 10, **more: Any) -> Assessment:
    """The release looked at while its counts grow evenly to these."""
    guard = RolloutGuards(rollout(**more))
    for look in range(1, looks + 1):
        verdict = guard.look(part(champion, look, looks), part(challenger, look, looks))
    return verdict


def part(whole: ModelCounts, numerator: int, denominator: int) -> ModelCounts:
    """A share of the counts."""

    def of(value: Any) -> Any:
        if isinstance(value, Counter):
            return Counter({key: of(count) for key, count in value.items()})
        return value * numerator // denominator

    return ModelCounts(**{name: of(value) for name, value in vars(whole).items()})


@pytest.mark.parametrize("failed", [0, 499])
def test_below_500_requests_nothing_is_judged(failed: int) -> None:
    verdict = last_look(counts(9000), counts(499, failed=failed))
    assert verdict.action == "hold"
    assert {found.state for found in verdict.guards.values()} == {"too little data"}


def test_more_errors_than_the_champion_s_end_the_release() -> None:
    verdict = last_look(counts(9000, failed=90), counts(1000, failed=60))
    assert (verdict.action, verdict.guard) == ("roll_back", "errors")
    assert "6.00%" in verdict.reason
    assert "1.00% of the champion's" in verdict.reason


def test_errors_of_both_are_nobody_s_fault() -> None:
    verdict = last_look(counts(9000, failed=540), counts(1000, failed=60))
    assert verdict.action == "hold"
    assert verdict.guards["errors"].state == "fine"


def test_errors_within_the_objective_are_no_reason_to_go_back() -> None:
    verdict = last_look(counts(90_000), counts(10_000, failed=40))
    assert verdict.action == "hold"


def test_with_all_requests_the_challenger_is_judged_by_the_objective_alone() -> None:
    verdict = last_look(ModelCounts(), counts(1000, failed=60), share=100)
    assert (verdict.action, verdict.guard) == ("roll_back", "errors")


def test_a_slow_challenger_goes_back_after_three_windows() -> None:
    slow = counts(650, whole_ms=400, work_ms=120)
    assert last_look(counts(5850), part(slow, 500, 650)).action == "hold"
    verdict = last_look(counts(5850), slow, looks=65)
    assert (verdict.action, verdict.guard) == ("roll_back", "latency")
    assert "200 ms" in verdict.reason


def test_slow_requests_whose_work_is_as_fast_are_not_the_challenger_s_fault() -> None:
    assert last_look(counts(9000, whole_ms=400), counts(1000, whole_ms=400), looks=50).action == "hold"


def test_slower_work_within_the_objective_is_no_reason_to_go_back() -> None:
    assert last_look(counts(9000), counts(1000, whole_ms=150, work_ms=120), looks=50).action == "hold"


def test_in_shadow_mode_its_own_work_is_held_against_the_objective() -> None:
    copies = counts(1000, work_ms=300, compared=1000, agreed=1000)
    copies.latency.clear()
    assert last_look(counts(10_000), copies, looks=50, shadow=True).guard == "latency"


def test_counts_of_a_replica_that_vanish_begin_the_windows_anew() -> None:
    guard = RolloutGuards(rollout())
    for requests in (0, 300, 600, 100, 400, 700):
        verdict = guard.look(counts(9 * requests), counts(requests, whole_ms=400, work_ms=120))
    assert verdict.action == "roll_back"  # two windows before, two after


def test_other_classes_end_the_release() -> None:
    other = Counter({0: 700, 1: 200, 2: 100})
    verdict = last_look(counts(9000), counts(1000, classes=other))
    assert (verdict.action, verdict.guard) == ("roll_back", "classes")


def test_a_challenger_that_moves_some_answers_stays() -> None:
    moved = Counter({0: 3900, 1: 3050, 2: 3050})
    assert last_look(counts(90_000), counts(10_000, classes=moved)).guards["classes"].state == "fine"


def test_a_batch_of_one_class_counts_as_one_image() -> None:
    # 30 requests with 64 images each: half of these show one thing, and so did a third of the champion's.
    images = Counter({0: 960, 1: 480, 2: 480})
    found = last_look(counts(400), counts(500, failed=470, classes=images), looks=1).guards["classes"]
    assert found.state != "over"
    assert last_look(counts(400), counts(1920, classes=images), looks=1).guards["classes"].state == "over"


def test_shared_out_by_caller_classes_are_not_judged() -> None:
    other = Counter({0: 1000})
    assert last_look(counts(9000), counts(1000, classes=other), sticky="caller").guards["classes"].state == "not judged"


def test_feedback_can_end_the_release_before_500_requests() -> None:
    verdict = last_look(counts(2700, right=540, wrong=60), counts(300, right=10, wrong=60))
    assert (verdict.action, verdict.guard) == ("roll_back", "feedback")


def test_less_than_50_labels_are_too_few() -> None:
    verdict = last_look(counts(2700, right=540, wrong=60), counts(300, wrong=49))
    assert verdict.action == "hold"
    assert verdict.guards["feedback"].state == "too little data"


def test_contradicting_every_second_answer_ends_a_release_in_shadow_mode() -> None:
    verdict = last_look(counts(10_000), counts(1000, compared=1000, agreed=300), shadow=True)
    assert (verdict.action, verdict.guard) == ("roll_back", "agreement")


def test_a_proven_challenger_is_promoted_if_that_is_wanted() -> None:
    champion, challenger = counts(9000, failed=9), counts(1000, failed=1)
    assert last_look(champion, challenger, looks=50).action == "hold"
    verdict = last_look(champion, challenger, looks=50, auto_promote=True)
    assert (verdict.action, verdict.guard) == ("promote", "proven")
    assert last_look(champion, part(challenger, 9, 10), looks=50, auto_promote=True).action == "hold"


def test_never_before_500_requests() -> None:
    assert last_look(counts(4500), counts(499), looks=50, auto_promote=True, promote_after=10).action == "hold"


def test_one_that_may_fail_more_often_is_not_promoted() -> None:
    verdict = last_look(counts(9000), counts(1000, failed=8), looks=50, auto_promote=True)
    assert verdict.action == "hold"
    assert "error rate" in verdict.reason


def test_one_that_is_too_slow_and_slower_is_not_promoted() -> None:
    slow = counts(1000)
    slow.latency[bucket_of(300)], slow.work[bucket_of(100)] = 15, 15
    verdict = last_look(counts(9000), slow, looks=50, auto_promote=True)
    assert verdict.action == "hold"
    assert "P99" in verdict.reason


def test_from_the_shadow_only_one_that_agrees_is_promoted() -> None:
    def look(agreed: int) -> str:
        copies = counts(1000, compared=1000, agreed=agreed)
        return last_look(counts(10_000), copies, looks=50, shadow=True, auto_promote=True).action

    assert look(990) == "promote"
    assert look(800) == "hold"


def test_figures_are_plain_values_of_both() -> None:
    found = last_look(counts(9000, failed=9, right=80, wrong=20), counts(600, right=55, wrong=5)).figures
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["champion"]["error_rate"] == pytest.approx(0.001)
    low, high = found["challenger"]["accuracy_interval"]
    assert low < 55 / 60 < high
    assert found["guards"]["errors"]["state"] == "fine"


def test_without_any_request_nothing_is_known_and_nothing_fails() -> None:
    found = RolloutGuards(rollout()).look(ModelCounts(), ModelCounts())
    assert found.action == "hold"
    assert found.figures["challenger"]["p99_ms"] is None


def test_a_guard_that_starts_anew_judges_as_the_one_before() -> None:
    champion, challenger = counts(9000, failed=90), counts(1000, failed=60)
    assert RolloutGuards(rollout()).look(champion, challenger).guard == "errors"
