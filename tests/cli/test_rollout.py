"""`lensmith rollout` begins, shows and ends canary releases; what cannot be is refused, and leaves nothing behind."""

import io
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lensmith
from fixtures.command_line import Run
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.registry.client import client, uri
from lensmith.rollout.guards import RolloutGuards
from lensmith.rollout.ledger import Ledger
from lensmith.rollout.metrics import ModelCounts, bucket_of
from lensmith.rollout.report import SEEN, RolloutReport, StopReason
from lensmith.rollout.state import CanaryRelease, now


@pytest.fixture(scope="session")
def pushed(colour_bundle: Bundle, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a champion, version 1; 2 has its labels in another order, 3 others, 4 no bundle."""
    folder = tmp_path_factory.mktemp("registry")
    database = Path(shutil.copy(empty_database, folder / "mlflow.db"))
    for number, labels in enumerate((None, ("red", "green", "blue"), ("blue", "green", "crimson", "teal")), start=1):
        bundle = folder / f"bundle-{number}"
        shutil.copytree(colour_bundle.path, bundle)
        if labels:
            changed = colour_bundle.manifest.model_copy(update={"labels": labels, "version": str(number)})
            (bundle / MANIFEST).write_text(changed.model_dump_json(), encoding="utf-8")
        lensmith.Registry(str(database)).push(bundle, "flowers", alias="champion" if number == 1 else None)
    there = client(uri(str(database)))
    there.create_model_version("flowers", str(folder / "bundle-1"))
    there.create_registered_model("empty")
    return database


@pytest.fixture
def registry(pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same for each test anew."""
    database = tmp_path / "mlflow.db"
    shutil.copy(pushed, database)
    monkeypatch.setenv("LENSMITH_TRACKING_URI", str(database))
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    return database


@pytest.fixture
def run(run: Run, registry: Path) -> Run:
    """`run("status", "flowers")` with a copy of the registry."""
    return lambda *args: run("rollout", *args)


def report(rollout: str, **challenger: Any) -> dict[str, Any]:
    """What a replica leaves."""
    fast = {"latency": Counter({bucket_of(40): 900}), "classes": Counter({0: 500, 1: 400})}
    return {
        **RolloutReport(rollout, ModelCounts(900, **fast), ModelCounts(**challenger)).as_dict(),
        "at": now().isoformat(),
    }


def ledger(registry: Path) -> Ledger:
    return Ledger.open(client(uri(str(registry))), "flowers")


def named(registry: Path) -> dict[str, str]:
    """Alias → version."""
    found = client(uri(str(registry))).get_registered_model("flowers").aliases
    return {alias: str(version) for alias, version in found.items()}


def test_a_release_goes_from_start_to_promotion(run: Run, registry: Path) -> None:
    code, out, _ = run("start", "flowers", "--version", "2", "--share", "25", "--auto-promote", "--json")
    begun = json.loads(out)
    assert code == 0
    assert (begun["id"], begun["champion"], begun["challenger"]) == ("flowers-1", "1", "2")
    assert (begun["share"], begun["auto_promote"], begun["shadow"]) == (25, True, False)
    assert named(registry) == {"champion": "1", "challenger": "2"}
    code, _, err = run("promote", "flowers", "--reason", "looks good")
    assert code == 2
    assert "0 of 500 challenger requests" in err
    assert "--force" in err
    assert named(registry) == {"champion": "1", "challenger": "2"}
    code, out, _ = run("promote", "flowers", "--reason", "looks good", "--force", "--json")
    assert json.loads(out)["decision"]["reason"] == "looks good"
    assert named(registry) == {"champion": "2", "previous": "1"}


def test_status_compares_both_over_all_replicas(run: Run, registry: Path) -> None:
    run("start", "flowers", "--version", "2")
    code, out, _ = run("abort", "flowers", "--reason", "first try")
    assert (code, out) == (0, "flowers-1 is aborted: version 1 is the champion of flowers.\n")
    assert named(registry) == {"champion": "1"}
    assert run("start", "flowers", "--version", "2")[0] == 0
    for replica in ("a", "b"):
        ledger(registry).report(2, replica, report("flowers-2", answered=290, failed=30))
    stopped = RolloutReport("flowers-2", stop=StopReason("not-finite", "it answered with nan")).as_dict()
    ledger(registry).report(2, "c", stopped)
    _, out, _ = run("status", "flowers", "--json")
    found = json.loads(out)
    assert found["comparison"]["champion"]["requests"] == 1800
    assert found["comparison"]["challenger"]["error_rate"] == pytest.approx(60 / 640, abs=1e-6)
    assert found["comparison"]["guards"]["errors"]["state"] == "over"
    assert [each["rollout"]["id"] for each in found["history"]] == ["flowers-1"]
    assert [each["name"] for each in found["replicas"]] == ["a", "b", "c"]
    _, out, _ = run("status", "flowers")
    for said in ("flowers-2", "under way", "1,800", "9.38%", "over", "it answered with nan", "first try", "s ago"):
        assert said in out


def test_status_shows_what_a_replicas_guards_see(run: Run, registry: Path) -> None:
    run("start", "flowers", "--version", "2")
    guards = RolloutGuards(CanaryRelease(id="", name="", champion="1", challenger="2", share=50))
    for requests in range(0, 1001, 250):
        slow = Counter({bucket_of(900): requests}) if requests <= 500 else Counter({bucket_of(900): 500, 0: requests})
        assessment = guards.assess(ModelCounts(), ModelCounts(answered=requests, latency=slow, work=slow))
    ledger(registry).report(1, "a", {**report("flowers-1", answered=1000), SEEN: assessment.seen})
    ledger(registry).report(1, "b", report("flowers-1", answered=10))  # of an older lensmith
    found = json.loads(run("status", "flowers", "--json")[1])["comparison"]
    assert found["seen_by"] == "a"
    assert {key: found[key] for key in assessment.seen} == assessment.seen
    _, out, _ = run("status", "flowers")
    for said in ("2 of 3", "not compared", "100.0%", "as the guards of a see it", "hold: "):
        assert said in out


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("", 2)])
def test_at_a_terminal_a_promotion_against_the_guards_is_asked_about(
    run: Run, registry: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    run("start", "flowers", "--version", "2")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run("promote", "flowers")[0] == code
    assert named(registry)["champion"] == ("2" if code == 0 else "1")


def test_status_of_a_model_without_release_says_so(run: Run) -> None:
    code, out, _ = run("status", "flowers")
    assert code == 0
    assert "no canary release" in out
    assert json.loads(run("status", "flowers", "--json")[1])["rollout"] is None


def test_watching_ends_with_the_release(run: Run) -> None:
    run("start", "flowers", "--version", "2")
    run("abort", "flowers")
    code, out, _ = run("status", "flowers", "--watch")
    assert code == 0
    assert "aborted" in out
    assert json.loads(run("status", "flowers", "--watch", "--json")[1])["decision"]["outcome"] == "aborted"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("flowers", "--version", "1"), "Version 1 of flowers is the champion"),
        (("flowers", "--version", "9"), "There is none. It has"),
        (("flowers", "--version", "4"), "A bundle was expected"),
        (("empty", "--version", "1"), "There is none"),
        (("flowers", "--version", "3"), "only the challenger has crimson, teal; only the champion has red"),
        (("flowers", "--version", "3", "--map", "crimson=rot", "--map", "x=red"), "no label of the challenger: x"),
        (("flowers", "--version", "two", "--share", "0", "--map", "x"), "version = 'two'"),
    ],
)
def test_what_cannot_be_tried_is_refused_and_nothing_is_left(
    run: Run, registry: Path, args: tuple[str, ...], said: str
) -> None:
    code, out, err = run("start", *args)
    assert (code, out) == (2, "")
    assert said in err
    assert named(registry) == {"champion": "1"}
    assert Ledger.find(client(uri(str(registry))), "flowers") is None


def test_mapped_labels_are_taken(run: Run) -> None:
    code, out, _ = run("start", "flowers", "--version", "3", "--map", "crimson=red", "--map", "teal=", "--json")
    assert code == 0
    assert json.loads(out)["mapping"] == {"crimson": "red", "teal": ""}


def test_two_at_once_are_refused(run: Run, registry: Path) -> None:
    run("start", "flowers", "--version", "2")
    code, _, err = run("start", "flowers", "--version", "3")
    assert code == 2
    assert "flowers-1 is: version 2" in err
    assert named(registry) == {"champion": "1", "challenger": "2"}


def test_where_none_is_under_way_none_can_be_ended(run: Run) -> None:
    assert run("promote", "flowers")[0] == 2
    run("start", "flowers", "--version", "2")
    run("abort", "flowers")
    code, _, err = run("abort", "flowers")
    assert code == 2
    assert "was aborted" in err


def test_nothing_is_promoted_over_another_champion(run: Run, registry: Path) -> None:
    run("start", "flowers", "--version", "2")
    client(uri(str(registry))).set_registered_model_alias("flowers", "champion", "3")
    code, _, err = run("promote", "flowers")
    assert code == 2
    assert "It is version 3 by now" in err
    assert run("abort", "flowers")[0] == 0
    assert named(registry) == {"champion": "3"}


def test_python_has_the_same_verbs(registry: Path) -> None:
    begun = lensmith.Rollout("flowers").start(version=3, map={"crimson": "red", "teal": ""})
    assert begun.mapping == {"crimson": "red", "teal": ""}
    assert next(iter(lensmith.Rollout("flowers").watch())).rollout == begun
    assert lensmith.Rollout("flowers").abort()[1].outcome == "aborted"
    decided = lensmith.Rollout("flowers").status()
    assert decided.decision is not None
