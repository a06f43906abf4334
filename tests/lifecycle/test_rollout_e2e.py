"""Canary releases with real processes: two replicas behind nginx, a registry, and clients that notice nothing.

The tests are one story, each begins where the one before it ended. Within how many requests to the challenger a rollout
ends is asserted, since that, and not a time, is what the guards promise.
"""

from collections.abc import Callable
from typing import Any

import pytest

from fixtures.canary import GOOD, LATE, SHUFFLED, SLOW, SPOILT, Stage, Traffic
from fixtures.faults import eventually
from lensmith.rollout.guards import LEAST_REQUESTS
from lensmith.rollout.latency_guard import TOO_SLOW, WINDOW

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WINDOWED = TOO_SLOW * WINDOW
"""Requests to a challenger after which it can be too slow in three windows."""


@pytest.fixture(scope="module")
def stage(stage_of: Callable[[str], Stage], store: str) -> Stage:
    made = stage_of(store)
    made.serve(2)
    return made


@pytest.fixture(scope="module")
def url(stage: Stage, proxy: Callable[..., Any]) -> str:
    """The address of nginx before both replicas."""
    return str(proxy(*(each.url for each in stage.services)).url)


@pytest.mark.parametrize(
    ("challenger", "feedback", "settings", "guard", "least", "most"),
    [
        (SHUFFLED, 0.5, {}, "feedback", 0, LEAST_REQUESTS + LATE),
        (SLOW, 0.0, {"slo_ms": 20.0}, "latency", WINDOWED, WINDOWED + LATE),
        (SPOILT, 0.0, {}, "not-finite", 0, LATE),
    ],
    ids=["feedback", "latency", "not-finite"],
)
def test_a_faulty_challenger_is_rolled_back(
    stage: Stage, url: str, challenger: Any, feedback: float, settings: Any, guard: str, least: int, most: int
) -> None:
    version = stage.push(**challenger)
    with Traffic(url, feedback) as clients:
        stage.begin(version, auto_promote=True, **settings)
        decision = stage.ended()
        assert stage.served() == {"1"}
    clients.assert_unnoticed()
    assert (decision["outcome"], decision["guard"]) == ("rolled_back", guard)
    assert least <= stage.challenged() <= most
    if guard == "not-finite":  # one failure in each replica that saw it
        assert stage.status().comparison["challenger"]["failed"] <= len(stage.services)


def test_a_person_promotes_takes_back_and_aborts_though_a_sidecar_dies(stage: Stage, url: str) -> None:
    copied, aborted = stage.push(**GOOD), stage.push(**SHUFFLED)
    (sidecar,) = stage.sidecars()
    with Traffic(url) as clients:
        sidecar.kill()  # the service starts another
        stage.begin(copied, share=100, shadow=True)
        eventually(lambda: stage.status().comparison.get("challenger", {}).get("requests"))
        assert clients.versions[copied] == 0
        stage.rollout.promote(force=True)
        stage.await_served(copied)
        stage.registry.rollback("colours")
        stage.await_served("1")
        stage.begin(aborted)
        eventually(lambda: clients.versions[aborted])
        stage.rollout.abort()
        assert stage.ended()["outcome"] == "aborted"
        assert stage.served() == {"1"}
        before, answered = clients.versions[aborted], clients.versions["1"]
        eventually(lambda: clients.versions["1"] > answered + 100)
        assert clients.versions[aborted] - before < 10  # what was under way
    clients.assert_unnoticed()


def test_a_better_model_is_promoted_by_itself(stage: Stage, url: str) -> None:
    version = stage.push(**GOOD)
    with Traffic(url, feedback=0.3) as clients:
        stage.begin(version, auto_promote=True, promote_after=600)
        decision = stage.ended()
        assert (decision["outcome"], decision["guard"]) == ("promoted", "proven"), decision["reason"]
        stage.await_served(version)
        before, answered = clients.versions["1"], clients.versions[version]
        eventually(lambda: clients.versions[version] > answered + 100)
        assert clients.versions["1"] - before < 20
    clients.assert_unnoticed()
    assert 600 <= stage.challenged() <= 600 + 2 * LATE
    assert clients.right[version] == clients.versions[version]
    assert clients.right["1"] < clients.versions["1"]
    figures = stage.status().comparison
    assert figures["challenger"]["accuracy"] > figures["champion"]["accuracy"]


def test_a_replica_that_dies_takes_nothing_with_it(stage: Stage, url: str) -> None:
    champion, version = stage.champion, stage.push(**SHUFFLED)
    with Traffic(url) as clients:
        stage.begin(version)
        eventually(lambda: clients.versions[version] > 250)
        dead, sidecars = stage.services[0].process, stage.sidecars()
        dead.kill()
        dead.wait()
        decision = stage.ended()
        assert stage.served() == {champion}
    clients.assert_unnoticed()
    assert (decision["outcome"], decision["guard"]) == ("rolled_back", "classes")
    # What the dead one had counted is counted on: each alone has seen too little.
    reports = [each.challenger for each in stage.status().replicas]
    assert len(reports) == 2
    assert min(reports) > 0
    assert LEAST_REQUESTS <= stage.challenged() <= LEAST_REQUESTS + LATE
    eventually(lambda: not any(each.is_running() for each in sidecars))  # its sidecar ended with it
