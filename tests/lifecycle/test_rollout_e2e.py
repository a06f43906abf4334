"""Canary releases with real processes: two replicas behind nginx, a registry, and clients that notice nothing.

`pytest -k rollout_e2e` runs just these. Within how many requests to the challenger each ends is asserted, since that,
and not a time, is what the guards promise.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from lensmith import api
from lensmith.rollout.guards import LEAST_REQUESTS
from lensmith.rollout.latency_guard import TOO_SLOW, WINDOW
from lensmith.serving.child_process import ServiceProcess

MATRIX = 8 * (2 * np.eye(3, dtype=np.float32)[[2, 1, 0]] - np.ones((3, 3), dtype=np.float32) / 2)
"""Means of the channels red, green, blue → logits of blue, green, red; what a model has unless told otherwise."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BLURRED = {"bias": (4.0, 0.0, 0.0)}
"""Takes greenish pictures that are hard to tell for blue: right for 19 pictures of 20."""
SHUFFLED = {"weights": MATRIX[[1, 2, 0]]}
"""Says green for blue, red for green and blue for red."""
SPOILT = {"fails_at": 0.6}
"""Answers bright green pictures, of which the golden samples are none, with logits that are not finite."""
WINDOWED = TOO_SLOW * WINDOW
"""Requests to a challenger after which it can be too slow in three windows."""
LATE = 400
"""Requests to a challenger that may come between the one which proves it and its end: two polls of each replica."""


@dataclass
class Scene:
    """A model in the registry, its replicas, the proxy before them, and what to ask them."""

    name: str
    store: str
    services: list[ServiceProcess]
    url: str
    state_of: Callable[[str], dict[str, Any]]
    eventually: Callable[..., Any]
    traffic: Callable[..., Any]
    more: Callable[[int], list[ServiceProcess]]

    def begin(self, version: str, **how: Any) -> None:
        api.Rollout(self.name, self.store).start(version, **{"share": 50.0, **how})

    def states(self) -> list[dict[str, Any]]:
        return [self.state_of(each.url) for each in self.services if each.process.poll() is None]

    def ended(self) -> dict[str, Any]:
        """The decision, once every replica that lives has carried it out."""

        def everywhere() -> Any:
            decisions = [state["decision"] for state in self.states()]
            return decisions[0] if all(decisions) else None

        return dict(self.eventually(everywhere))

    def served(self) -> set[str]:
        return {state["version"] for state in self.states()}

    def status(self) -> Any:
        return api.Rollout(self.name, self.store).status()

    def challenged(self) -> int:
        """Requests that the challenger got, by the decision's own figures."""
        return int(self.status().comparison["challenger"]["requests"])


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    made: Callable[..., Path],
    store: str,
    replicas: Callable[..., list[ServiceProcess]],
    proxy: Callable[..., Any],
    traffic: Callable[..., Any],
    state_of: Callable[[str], dict[str, Any]],
    eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Scene]:
    """`scene(challenger, …)`: the blurred champion serves as version 1; the others are versions 2, 3, …"""
    monkeypatch.setenv("LENSMITH_SERVE_DEADLINE_MS", "20000")  # of the proxy, which waits as long as the replicas

    def set_up(*challengers: dict[str, Any], store: str = store, **settings: Any) -> Scene:
        name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_"))[:60].strip("-")
        for number, how in enumerate((BLURRED, *challengers), start=1):
            alias = "champion" if number == 1 else None
            pushed = api.Registry(store).push(made(f"{name}-{number}", **how), name, alias=alias)
            assert pushed.version.version == str(number)
        services = replicas(name, store, **settings)
        front = proxy(*(each.url for each in services))
        return Scene(
            name, store, services, front.url, state_of, eventually, traffic, lambda count: replicas(name, store, count)
        )

    return set_up


def assert_unnoticed(clients: Any) -> None:
    """No client saw that anything happened."""
    assert clients.lost == []
    assert set(clients.statuses) == {200}


def test_a_better_model_is_promoted_by_itself(scene: Callable[..., Scene]) -> None:
    it = scene({})
    with it.traffic(it.url, feedback=0.3) as clients:
        it.begin("2", auto_promote=True, promote_after=600)
        decision = it.ended()
        assert (decision["outcome"], decision["guard"]) == ("promoted", "proven"), decision["reason"]
        it.eventually(lambda: it.served() == {"2"})
        before = clients.versions["1"]
        it.eventually(lambda: clients.versions["2"] > 700 and clients.versions["1"] - before < 20)
    assert_unnoticed(clients)
    assert 600 <= it.challenged() <= 600 + 2 * LATE
    assert clients.right["2"] == clients.versions["2"]
    assert clients.right["1"] < clients.versions["1"]
    figures = it.status().comparison
    assert figures["challenger"]["accuracy"] > figures["champion"]["accuracy"]


@pytest.mark.parametrize(
    ("challenger", "feedback", "settings", "guard", "least", "most"),
    [
        (SHUFFLED, 0.5, {}, "feedback", 0, LEAST_REQUESTS + LATE),
        (SHUFFLED, 0.0, {}, "classes", LEAST_REQUESTS, LEAST_REQUESTS + LATE),
        ({"work": 1}, 0.0, {"slo_ms": 20.0}, "latency", WINDOWED, WINDOWED + LATE),
        (SPOILT, 0.0, {}, "not-finite", 0, LATE),
    ],
    ids=["feedback", "classes", "latency", "not-finite"],
)
def test_a_faulty_challenger_is_rolled_back(
    scene: Callable[..., Scene],
    challenger: dict[str, Any],
    feedback: float,
    settings: dict[str, Any],
    guard: str,
    least: int,
    most: int,
) -> None:
    it = scene(challenger)
    with it.traffic(it.url, feedback=feedback) as clients:
        it.begin("2", auto_promote=True, **settings)
        decision = it.ended()
        assert it.served() == {"1"}
    assert_unnoticed(clients)
    assert (decision["outcome"], decision["guard"]) == ("rolled_back", guard)
    assert least <= it.challenged() <= most
    if guard == "not-finite":  # one failure in each replica that saw it
        assert it.status().comparison["challenger"]["failed"] <= len(it.services)


def test_a_replica_that_dies_takes_nothing_with_it(scene: Callable[..., Scene], cache: Path) -> None:
    it = scene({"work": 1})
    with it.traffic(it.url) as clients:
        it.begin("2", slo_ms=20.0)
        it.eventually(lambda: clients.versions["2"] > 300)
        dead, *_ = it.services
        sidecars = psutil.Process(dead.process.pid).children()
        dead.process.kill()
        dead.process.wait()
        decision = it.ended()
        assert it.served() == {"1"}
    assert_unnoticed(clients)
    assert (decision["outcome"], decision["guard"]) == ("rolled_back", "latency")
    # What the dead one had counted is counted on: each alone has seen too little.
    reports = {each.name: each.challenger for each in it.status().replicas}
    assert len(reports) == 2
    assert it.challenged() <= WINDOWED + LATE
    it.eventually(lambda: not any(each.is_running() for each in sidecars))  # its sidecar ended with it


def test_without_the_registry_serving_goes_on_and_a_bad_model_still_goes_back(
    scene: Callable[..., Scene], server: Any
) -> None:
    it = scene(SPOILT, store=server.url)
    with it.traffic(it.url, only=("red", "blue")) as clients:  # none that it fails for
        it.begin("2")
        it.eventually(lambda: clients.versions["2"] > 50)
        server.kill()
        it.eventually(lambda: {state["reachable"] for state in it.states()} == {False})
        answered = clients.versions["2"]
        it.eventually(lambda: clients.versions["2"] > answered + 50)  # as before
    with it.traffic(it.url) as later:
        it.ended()
        assert {state["decision"]["guard"] for state in it.states()} == {"not-finite"}
        assert it.served() == {"1"}
        # A replica that starts now has what was known last, and begins with it.
        (late,) = it.more(1)
        assert it.state_of(late.url)["version"] == "1"
        server.start()
        it.eventually(lambda: {state["reachable"] for state in it.states()} == {True})
        status = it.status()
    assert_unnoticed(clients)
    assert_unnoticed(later)
    assert (status.decision.outcome, status.decision.guard) == ("rolled_back", "not-finite")


def test_a_sidecar_that_dies_is_replaced_and_nobody_notices(scene: Callable[..., Scene]) -> None:
    it = scene({}, count=1)
    with it.traffic(it.url) as clients:
        (sidecar,) = psutil.Process(it.services[0].process.pid).children()
        sidecar.kill()
        it.begin("2", auto_promote=True, promote_after=LEAST_REQUESTS)
        assert it.ended()["outcome"] == "promoted"
        it.eventually(lambda: it.served() == {"2"})
    assert_unnoticed(clients)


def test_several_processes_of_one_service_take_part_as_one(scene: Callable[..., Scene]) -> None:
    it = scene({}, count=1, workers=2)
    with it.traffic(it.url) as clients:
        it.begin("2", auto_promote=True, promote_after=LEAST_REQUESTS)
        assert it.ended()["outcome"] == "promoted"
        it.eventually(lambda: it.served() == {"2"})
        versions = clients.versions["1"]
        it.eventually(lambda: clients.versions["2"] > 600)
        assert clients.versions["1"] - versions < 50
    assert_unnoticed(clients)
    assert it.challenged() >= LEAST_REQUESTS


def test_from_the_command_line(scene: Callable[..., Scene]) -> None:
    it = scene({}, {})

    def lensmith(*arguments: str, code: int = 0) -> Any:
        command = [sys.executable, "-m", "lensmith", *arguments, "--tracking-uri", it.store, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    begun = lensmith("rollout", "start", it.name, "--version", "2", "--share", "100", "--shadow")
    assert begun["shadow"]
    with it.traffic(it.url) as clients:
        it.eventually(lambda: it.states()[0]["rollout"])
        assert "under way" in lensmith("rollout", "start", it.name, "--version", "3", code=2)["message"]
        it.eventually(
            lambda: lensmith("rollout", "status", it.name)["comparison"].get("challenger", {}).get("requests")
        )
        lensmith("rollout", "promote", it.name)
        it.eventually(lambda: it.served() == {"2"})
        lensmith("registry", "rollback", it.name)
        it.eventually(lambda: it.served() == {"1"})
        lensmith("rollout", "start", it.name, "--version", "3")
        it.eventually(lambda: clients.versions["3"])
        lensmith("rollout", "abort", it.name)
        it.eventually(lambda: all(state["decision"] for state in it.states()))
        assert {state["decision"]["outcome"] for state in it.states()} == {"aborted"}
        assert it.served() == {"1"}
        before, answered = clients.versions["3"], clients.versions["1"]
        it.eventually(lambda: clients.versions["1"] > answered + 300)
        assert clients.versions["3"] - before < 10  # what was under way
    assert_unnoticed(clients)
