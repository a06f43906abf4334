"""The rollout ledger: the first to write has it, and a decision takes effect once."""

import json
import random
from collections import Counter
from typing import Any

import pytest

from lensmith.errors import RegistryError, RolloutError
from lensmith.registry.models import aliases
from lensmith.rollout.ledger import Ledger, LedgerEntry
from lensmith.rollout.metrics import BUCKETS, ModelCounts
from lensmith.rollout.state import CanaryRelease, Decision


@pytest.fixture
def ledger(flowers: Any) -> Ledger:
    """Of flowers, which has versions 1 (champion), 2 and 3."""
    return Ledger.open(flowers, "flowers")


def rollout(**fields: Any) -> CanaryRelease:
    return CanaryRelease(**{"id": "", "name": "flowers", "champion": "1", "challenger": "2", **fields})


def latest(ledger: Ledger) -> LedgerEntry:
    entry = ledger.latest()
    assert entry is not None
    return entry


def test_a_model_without_rollouts_has_no_ledger(flowers: Any) -> None:
    assert Ledger.find(flowers, "flowers") is None
    opened = Ledger.open(flowers, "flowers")
    assert opened.latest() is None
    assert Ledger.open(flowers, "flowers").run == opened.run


def test_numbers_count_up_and_history_keeps_all(ledger: Ledger) -> None:
    for n in (1, 2):
        assert ledger.begin(rollout(challenger=str(n + 1))).id == f"flowers-{n}"
        ledger.decide(n, Decision(outcome="aborted", reason=f"the {n}th"))
    assert [(entry.n, entry.rollout.challenger) for entry in ledger.history()] == [(1, "2"), (2, "3")]
    assert [entry.decision.reason for entry in ledger.history() if entry.decision] == ["the 1th", "the 2th"]


def test_two_rollouts_at_once_are_refused(ledger: Ledger) -> None:
    ledger.begin(rollout())
    with pytest.raises(RolloutError, match="flowers-1 is: version 2 beside 1"):
        ledger.begin(rollout(challenger="3"))
    assert len(ledger.history()) == 1


def test_a_number_that_another_has_claimed_meanwhile_is_his(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    other = rollout(id="flowers-1", by="the other")

    def too_late(self: Ledger) -> None:
        self.client.log_param(self.run, "rollout.1", other.model_dump_json())

    monkeypatch.setattr(Ledger, "latest", too_late)
    with pytest.raises(RolloutError, match="under way"):
        ledger.begin(rollout(by="me"))
    monkeypatch.undo()
    assert latest(ledger).rollout.by == "the other"


def test_a_promotion_moves_the_aliases_once(ledger: Ledger) -> None:
    ledger.client.set_registered_model_alias("flowers", "challenger", "2")
    ledger.begin(rollout())
    before = latest(ledger)
    ledger.decide(1, Decision(outcome="promoted", reason="better"))
    ledger.apply(latest(ledger))
    assert aliases(ledger.client, "flowers") == {"champion": "2", "previous": "1"}
    assert latest(ledger).applied
    ledger.client.set_registered_model_alias("flowers", "champion", "3")
    ledger.apply(before)
    ledger.apply(latest(ledger))
    assert aliases(ledger.client, "flowers") == {"champion": "3", "previous": "1"}


@pytest.mark.parametrize(
    ("outcome", "named", "left"),
    [
        ("rolled_back", "2", {"champion": "1"}),
        ("aborted", "2", {"champion": "1"}),
        ("aborted", "3", {"challenger": "3", "champion": "1"}),  # somebody has moved it meanwhile
    ],
)
def test_after_a_rollback_only_the_alias_of_the_challenger_is_removed(
    outcome: Any, named: str, left: dict[str, str], ledger: Ledger
) -> None:
    ledger.client.set_registered_model_alias("flowers", "challenger", named)
    ledger.begin(rollout())
    ledger.decide(1, Decision(outcome=outcome, reason="worse"))
    ledger.apply(latest(ledger))
    assert aliases(ledger.client, "flowers") == left


def test_a_promotion_that_crashed_half_way_is_completed(ledger: Ledger) -> None:
    ledger.begin(rollout())
    ledger.decide(1, Decision(outcome="promoted", reason="better"))
    ledger.client.set_registered_model_alias("flowers", "previous", "1")
    ledger.client.set_registered_model_alias("flowers", "champion", "2")  # and here it died
    ledger.apply(latest(ledger))
    assert aliases(ledger.client, "flowers") == {"champion": "2", "previous": "1"}


def test_a_decision_that_nobody_applied_is_applied_before_the_next_begins(ledger: Ledger) -> None:
    ledger.begin(rollout())
    ledger.decide(1, Decision(outcome="promoted", reason="better"))
    ledger.begin(rollout(champion="2", challenger="3"))
    assert aliases(ledger.client, "flowers")["champion"] == "2"


def test_each_replica_keeps_its_own_last_report(ledger: Ledger) -> None:
    ledger.begin(rollout())
    ledger.report(1, "a:8001", {"champion": {"answered": 1}})
    ledger.report(1, "a:8001", {"champion": {"answered": 5}})
    ledger.report(1, "b", {"champion": {"answered": 2}, "at": "2026-01-01"})
    assert latest(ledger).reports == {
        "a_8001": {"champion": {"answered": 5}},
        "b": {"champion": {"answered": 2}, "at": "2026-01-01"},
    }


def test_the_fullest_report_there_can_be_fits(ledger: Ledger) -> None:
    drawn = random.Random(0)

    def full(keys: Any) -> Any:
        return Counter({key: drawn.randrange(1, 1_000_000) for key in keys})

    counts = {
        "answered": 10**7, "latency": full(range(BUCKETS + 1)), "work": full(range(BUCKETS + 1)),
        "classes": full(range(-1, 100)),
    }  # fmt: skip
    report = {role: ModelCounts(**counts).as_dict() for role in ("champion", "challenger")}
    ledger.begin(rollout())
    ledger.report(1, "replica", report)
    assert latest(ledger).reports["replica"] == report


def test_a_report_beyond_mlflows_limit_is_refused_and_the_one_before_stays(ledger: Ledger) -> None:
    ledger.begin(rollout())
    ledger.report(1, "replica", {"answered": 1})
    with pytest.raises(RegistryError, match="at most 8,000 characters"):
        ledger.report(1, "replica", {"noise": random.Random(0).randbytes(20_000).hex()})
    assert latest(ledger).reports["replica"] == {"answered": 1}


def test_a_mapping_too_long_for_mlflow_is_refused(ledger: Ledger) -> None:
    with pytest.raises(RolloutError, match="400 mapped labels"):
        ledger.begin(rollout(mapping={f"label {n:03d}": f"etikett {n:03d}" for n in range(400)}))
    assert ledger.latest() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "figures", "reason"),
    [
        (
            {"figures": {"classes": list(range(3000))}, "reason": "slow " * 200},
            {"left_out": "too long for the registry"},
            "slow " * 200,
        ),
        ({"reason": "because " * 1000}, {}, "because " * 50 + "…"),
    ],
)
def test_a_decision_too_long_for_mlflow_is_shortened_and_stays_readable(
    fields: Any, figures: Any, reason: str, ledger: Ledger
) -> None:
    ledger.begin(rollout())
    ledger.decide(1, Decision(**{"outcome": "rolled_back", "guard": "latency", **fields}))
    decision = latest(ledger).decision
    assert decision is not None
    assert (decision.outcome, decision.guard) == ("rolled_back", "latency")
    assert (decision.figures, decision.reason) == (figures, reason)


def test_old_reports_are_removed_and_the_last_ones_stay(ledger: Ledger) -> None:
    for n in (1, 2, 3):
        ledger.begin(rollout())
        ledger.report(n, "replica", {"n": n})
        ledger.decide(n, Decision(outcome="aborted", reason="enough"))
    assert [dict(entry.reports) for entry in ledger.history()] == [{}, {"replica": {"n": 2}}, {"replica": {"n": 3}}]


def test_a_garbled_entry_is_an_error(ledger: Ledger) -> None:
    ledger.client.log_param(ledger.run, "rollout.1", json.dumps({"id": 3}))
    with pytest.raises(RegistryError, match=r"rollout\.1.*cannot be read"):
        ledger.latest()


def test_a_deleted_ledger_is_restored(ledger: Ledger) -> None:
    ledger.begin(rollout())
    ledger.client.delete_run(ledger.run)
    again = Ledger.open(ledger.client, "flowers")
    assert again.decide(1, Decision(outcome="aborted", reason="enough")).outcome == "aborted"
    assert [entry.decision is not None for entry in again.history()] == [True]


def test_a_ledger_that_is_gone_for_good_is_followed_by_another(ledger: Ledger) -> None:
    ledger.begin(rollout())
    registry: Any = ledger.client
    registry.delete_run(ledger.run)
    registry._tracking_client.store._hard_delete_run(ledger.run)  # as `mlflow gc` does
    assert Ledger.find(registry, "flowers") is None
    for _ in range(2):
        again = Ledger.open(registry, "flowers")
        assert again.run != ledger.run
    assert again.begin(rollout()).id == "flowers-1"


def test_a_rollout_needs_no_run_of_a_training_that_was_deleted(flowers: Any) -> None:
    flowers.delete_run(flowers.get_model_version("flowers", "1").run_id)
    ledger = Ledger.open(flowers, "flowers")
    assert ledger.begin(rollout()).id == "flowers-1"
