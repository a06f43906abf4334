"""Canary releases in a service of two processes, which follows a registry in PostgreSQL that goes away."""

from collections.abc import Callable

import pytest

from fixtures.canary import GOOD, SPOILT, Stage, Traffic
from fixtures.faults import eventually
from fixtures.registries import Server
from lensmith.rollout.guards import LEAST_REQUESTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stage(stage_of: Callable[[str], Stage], postgresql: Server) -> Stage:
    made = stage_of(postgresql.url)
    made.serve(workers=2)
    return made


def test_several_processes_of_one_service_take_part_as_one(stage: Stage) -> None:
    version = stage.push(**GOOD)
    with Traffic(stage.services[0].url) as clients:
        stage.begin(version, share=75, auto_promote=True, promote_after=LEAST_REQUESTS)
        decision = stage.ended()
        assert decision["outcome"] == "promoted", decision
        stage.await_served(version)
        before, answered = clients.versions["1"], clients.versions[version]
        eventually(lambda: clients.versions[version] > answered + 200)
        assert clients.versions["1"] - before < 50
    clients.assert_unnoticed()
    assert stage.challenged() >= LEAST_REQUESTS


def test_without_the_registry_serving_goes_on_and_a_bad_model_still_goes_back(stage: Stage, postgresql: Server) -> None:
    champion, version, url = stage.champion, stage.push(**SPOILT), stage.services[0].url
    with Traffic(url, only=("red", "blue")) as clients:  # none that it fails for
        stage.begin(version)
        eventually(lambda: clients.versions[version] > 50)
        postgresql.kill()
        eventually(lambda: {state["reachable"] for state in stage.states()} == {False})
        answered = clients.versions[version]
        eventually(lambda: clients.versions[version] > answered + 50)  # as before
    with Traffic(url) as later:
        assert stage.ended()["guard"] == "not-finite"
        assert stage.served() == {champion}
        # A replica that starts now has what was known last, and begins with it.
        stage.serve()
        assert stage.served() == {champion}
        postgresql.start()
        eventually(lambda: {state["reachable"] for state in stage.states()} == {True})
    clients.assert_unnoticed()
    later.assert_unnoticed()
    decision = stage.status().decision
    assert decision is not None
    assert (decision.outcome, decision.guard) == ("rolled_back", "not-finite")
