"""The registry sidecar of a service, in the process of the test: one poll after the other."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith import api
from lensmith.bundle.format import Bundle
from lensmith.errors import ObjectionError, RegistryError, RegistryUnreachableError
from lensmith.registry.client import client, sqlite_file
from lensmith.registry.models import CONTENT_TAG
from lensmith.registry.pull import cached
from lensmith.registry.references import ModelReference
from lensmith.rollout import registry_sidecar
from lensmith.rollout.ledger import Ledger
from lensmith.rollout.metrics import ModelCounts, bucket_of
from lensmith.rollout.registry_sidecar import RegistrySidecar
from lensmith.rollout.report import RolloutReport, StopReason
from lensmith.rollout.sidecar_channel import SidecarChannel

pytestmark = pytest.mark.slow


class Scene:
    """A model with three versions, of which the first is the champion, and sidecars of it."""

    def __init__(self, client: Any, folder: Path) -> None:
        self.client, self.store, self.folder = client, str(client.tracking_uri), folder
        self.registry, self.rollout = api.Registry(self.store), api.Rollout("flowers", self.store)
        self.channels: list[SidecarChannel] = []

    def begun(self, number: int | None = None) -> RegistrySidecar:
        """A sidecar that has begun: a further one, or in the place of another."""
        if number is None:
            number = len(self.channels)
            (self.folder / f"channel{number}").mkdir()
            self.channels.append(SidecarChannel(self.folder / f"channel{number}"))
        folder = self.channels[number].folder
        sidecar = RegistrySidecar(ModelReference("flowers", "champion"), SidecarChannel(folder), self.store)
        sidecar.begin()
        return sidecar

    def under_way(self, **settings: Any) -> RegistrySidecar:
        """A sidecar that has begun, and sees the rollout of version 2."""
        sidecar = self.begun()
        self.rollout.start("2", **settings)
        sidecar.poll()
        return sidecar

    def state(self, number: int = 0) -> Any:
        return self.channels[number].desired_state()

    def change(self, version: str) -> str:
        """Change the files of a version, as seen from its tag; returns the new content's hash."""
        self.client.set_model_version_tag("flowers", version, CONTENT_TAG, "0" * 64)
        return "0" * 64

    def count(self, number: int = 0, stop: StopReason | None = None, **challenger: int) -> None:
        """Write the report of a process of the service."""
        report = RolloutReport("flowers-1", ModelCounts(answered=5000), ModelCounts(**challenger), stop)
        self.channels[number].write_report(report.as_dict())

    def aliases(self) -> dict[str, str]:
        return self.registry.model("flowers").aliases


@pytest.fixture
def scene(flowers: Any, tmp_path: Path) -> Scene:
    return Scene(flowers, tmp_path)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """`away(True)`: the registry does not answer, until `away(False)`."""
    real = registry_sidecar.resolve

    def set_to(gone: bool) -> None:
        def silent(*_: Any) -> Any:
            raise RegistryUnreachableError("MLflow was expected to answer.", "It did not.", "Wait.")

        monkeypatch.setattr(registry_sidecar, "resolve", silent if gone else real)

    return set_to


def test_what_an_alias_names_is_fetched_and_followed(scene: Scene) -> None:
    sidecar = scene.begun()
    before = scene.state()
    assert (before.version, before.rollout) == ("1", None)
    sidecar.poll()
    assert scene.state() is before  # what has not changed is not written again
    scene.registry.set_alias("flowers@2", "champion")
    sidecar.poll()
    assert scene.state().version == "2"
    assert Bundle.load(scene.state().path).manifest.version == "run-2"


def test_a_champion_that_cannot_be_fetched_leaves_the_old_one(scene: Scene) -> None:
    sidecar = scene.begun()
    content = scene.change("2")
    scene.registry.set_alias("flowers@2", "champion")
    sidecar.poll()
    sidecar.poll()
    assert scene.state().version == "1"
    assert scene.state().reachable
    assert scene.state().problem.startswith("The bundle that was pushed as flowers@2 was expected")
    assert not cached(content).exists()


def test_a_challenger_whose_files_have_changed_is_rolled_back(scene: Scene) -> None:
    sidecar = scene.begun()
    scene.rollout.start("2")
    scene.change("2")
    sidecar.poll()
    assert (scene.state().decision.outcome, scene.state().decision.guard) == ("rolled_back", "load")


def test_a_stop_in_a_report_is_urgent_and_ends_the_rollout(scene: Scene) -> None:
    sidecar = scene.under_way()
    assert scene.state().challenger_path is not None
    assert not sidecar.is_urgent
    scene.count(answered=3, failed=1, stop=StopReason("not-finite", "no number"))
    assert sidecar.is_urgent
    sidecar.poll()
    assert (scene.state().decision.guard, scene.state().decision.reason) == ("not-finite", "no number")
    assert scene.aliases() == {"champion": "1"}


def test_the_counts_of_all_replicas_are_assessed_together(scene: Scene) -> None:
    first, second = scene.begun(), scene.begun()
    scene.rollout.start("2")
    for each in (first, second):
        each.poll()
    for number in (0, 1):  # each alone has seen too little
        scene.count(number, answered=250, failed=30)
    first.poll()
    assert scene.state(0).decision is None
    second.poll()
    assert (scene.state(1).decision.outcome, scene.state(1).decision.guard) == ("rolled_back", "errors")
    first.poll()
    assert scene.state(0).decision == scene.state(1).decision


def test_another_champion_meanwhile_aborts_the_rollout(scene: Scene) -> None:
    sidecar = scene.under_way()
    # lensmith refuses that while a rollout is under way; MLflow's own page does not.
    scene.client.set_registered_model_alias("flowers", "champion", "3")
    sidecar.poll()
    assert (scene.state().decision.outcome, scene.state().decision.guard) == ("aborted", "champion")
    sidecar.poll()
    assert scene.state().version == "3"
    assert scene.aliases() == {"champion": "3"}


def test_a_promotion_that_somebody_rolls_back_is_not_repeated(scene: Scene) -> None:
    sidecar = scene.begun()
    scene.rollout.start("2")
    scene.rollout.promote(force=True)
    sidecar.poll()
    assert scene.state().version == "2"
    scene.registry.rollback("flowers")
    sidecar.poll()
    sidecar.poll()
    assert scene.state().version == "1"


def test_offline_a_challenger_is_rolled_back_and_the_ledger_is_updated_later(
    scene: Scene, away: Callable[[bool], None]
) -> None:
    sidecar = scene.under_way()
    away(True)
    sidecar.poll()
    assert (scene.state().reachable, scene.state().decision) == (False, None)
    scene.count(answered=3, failed=3, stop=StopReason("errors-in-a-row", "3 failed"))
    sidecar.poll()
    assert scene.state().decision.guard == "errors-in-a-row"
    assert scene.rollout.status().decision is None
    away(False)
    sidecar.poll()
    assert scene.state().reachable
    assert scene.rollout.status().decision == scene.state().decision


def test_offline_nothing_is_promoted(scene: Scene, away: Callable[[bool], None]) -> None:
    sidecar = scene.under_way(auto_promote=True, promote_after=500)
    away(True)
    for answered in (0, 300, 600, 900, 1200, 1500):
        scene.count(answered=answered)
        sidecar.poll()
    assert scene.state().decision is None


def test_an_offline_start_takes_the_cached_state_and_fails_without_a_whole_one(
    scene: Scene, away: Callable[[bool], None]
) -> None:
    away(True)
    with pytest.raises(RegistryUnreachableError):
        scene.begun()
    away(False)
    scene.begun()
    away(True)
    sidecar = scene.begun()
    assert (scene.state(2).version, scene.state(2).reachable) == ("1", False)
    sidecar._writer.cache_file.write_text("{")
    with pytest.raises(RegistryUnreachableError):
        scene.begun()


@pytest.mark.parametrize("change", ["alias removed", "model renamed", "version deleted"])
def test_what_is_not_followed_any_more_is_served_on_with_a_problem_also_by_a_replica_that_starts(
    scene: Scene, change: str
) -> None:
    sidecar = scene.begun()
    assert scene.state().problem == ""
    if change == "alias removed":
        scene.client.delete_registered_model_alias("flowers", "champion")
    elif change == "model renamed":
        scene.client.rename_registered_model("flowers", "roses")
    else:
        scene.client.delete_model_version("flowers", "1")
    sidecar.poll()
    scene.begun()
    for number in (0, 1):
        state = scene.state(number)
        assert (state.version, state.reachable) == ("1", True)
        assert "flowers" in state.problem
    if change == "alias removed":
        scene.registry.set_alias("flowers@2", "champion")
        sidecar.poll()
        assert (scene.state().version, scene.state().problem) == ("2", "")


def test_a_name_that_was_never_followed_here_is_refused(scene: Scene) -> None:
    scene.client.delete_registered_model_alias("flowers", "champion")
    with pytest.raises(RegistryError, match="alias champion"):
        scene.begun()


def test_a_file_that_takes_the_registrys_place_is_read_and_a_missing_one_is_not_made(scene: Scene) -> None:
    sidecar, file = scene.begun(), sqlite_file(scene.store)
    assert file is not None
    other = Path(shutil.copy(file, scene.folder / "other.db"))
    client(f"sqlite:///{other}").set_registered_model_alias("flowers", "champion", "2")
    other.replace(file)
    sidecar.poll()
    assert (scene.state().version, scene.state().problem) == ("2", "")
    away = file.rename(scene.folder / "away.db")
    sidecar.poll()
    scene.begun()
    for number in (0, 1):
        state = scene.state(number)
        assert (state.version, state.reachable) == ("2", False)
        assert str(file) in state.problem
    assert not file.exists()
    file.write_bytes(b"no database" * 1000)
    sidecar.poll()
    assert (scene.state().version, scene.state().problem != "") == ("2", True)
    away.replace(file)
    sidecar.poll()
    assert (scene.state().reachable, scene.state().problem) == (True, "")


def test_files_of_the_channel_that_others_remove_are_put_back_and_no_count_is_lost(scene: Scene) -> None:
    sidecar = scene.under_way()
    scene.count(answered=200)
    sidecar.poll()
    assert scene.state().version == "1"
    shutil.rmtree(scene.channels[0].folder)
    assert scene.state().version == "1"  # what was read stays
    sidecar.publish_again()
    assert SidecarChannel(scene.channels[0].folder).desired_state() == scene.state()
    polled = scene.channels[0].last_poll()
    sidecar.poll()
    assert scene.channels[0].last_poll() != polled
    assert scene.rollout.status().comparison["challenger"]["requests"] == 200
    (scene.channels[0].folder / "desired-state.json").write_text("{")
    assert scene.state().version == "1"
    sidecar.publish_again()
    assert SidecarChannel(scene.channels[0].folder).desired_state() == scene.state()


def test_reports_that_somebody_garbled_are_left_out(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar = scene.under_way()
    ledger = Ledger.open(scene.client, "flowers")
    nothing = {"rollout": "flowers-1", "champion": {}, "challenger": {}}
    timeless = json.dumps({**nothing, "at": "2026-01-01T00:00:00"})  # of no zone
    refused = json.dumps({**nothing, "champion": {"latency": {"1": "many"}}})
    for name, garbled in {"a": refused, "b": "no JSON", "c": "[]", "d": timeless}.items():
        scene.client.set_tag(ledger.run, f"rollout.1.counts.{name}", garbled)
    scene.count(answered=200, failed=400)
    sidecar.poll()
    assert scene.state().decision.guard == "errors"
    assert "champion.latency.1: " in capsys.readouterr().err
    ages = {replica.name: replica.age_s for replica in scene.rollout.status().replicas}
    assert [ages[name] for name in "abcd"] == [None] * 4


def test_status_shows_the_windows_and_states_that_a_replica_decides_by(scene: Scene) -> None:
    sidecar = scene.under_way()
    for requests in (0, 250, 500):
        slow = Counter({bucket_of(900): requests})
        report = RolloutReport("flowers-1", ModelCounts(), ModelCounts(answered=requests, latency=slow, work=slow))
        scene.channels[0].write_report(report.as_dict())
        sidecar.poll()
    found = scene.rollout.status()
    assert found.decision is None
    comparison = found.comparison
    assert comparison["seen_by"] == found.replicas[0].name
    assert comparison["guards"]["latency"] == scene.state().comparison["guards"]["latency"]
    assert comparison["guards"]["latency"]["evidence"] == 2
    assert comparison["latency_windows"] == [{"requests": 250, "late": 1.0, "slow": None, "over": True}] * 2
    with pytest.raises(ObjectionError, match="latency"):
        scene.rollout.promote()
    _, decision = scene.rollout.promote(force=True)
    assert (decision.guard, "latency" in decision.reason) == ("forced", True)
    assert scene.aliases()["champion"] == "2"


def test_a_sidecar_that_takes_anothers_place_counts_nothing_twice(scene: Scene) -> None:
    sidecar = scene.under_way()
    scene.count(answered=200)
    sidecar.poll()
    scene.begun(0).poll()
    assert scene.rollout.status().comparison["challenger"]["requests"] == 200


def test_an_offline_decision_about_one_rollout_ends_no_other(scene: Scene, away: Callable[[bool], None]) -> None:
    sidecar = scene.under_way()
    away(True)
    scene.count(answered=3, failed=3, stop=StopReason("not-finite", "no number"))
    sidecar.poll()
    assert scene.state().decision.guard == "not-finite"
    scene.rollout.abort()
    scene.rollout.start("3")
    away(False)
    sidecar.poll()
    assert (scene.state().rollout.challenger, scene.state().decision) == ("3", None)


def test_a_ledger_that_cannot_be_written_leaves_the_alias_to_be_followed_and_is_not_asked_in_a_loop(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = scene.under_way()

    def refused(*_: Any) -> Any:
        raise RegistryError("Access was expected.", "It was refused.", "Ask for it.")

    monkeypatch.setattr(Ledger, "report", refused)
    scene.count(answered=3, failed=1, stop=StopReason("not-finite", "no number"))
    scene.client.set_registered_model_alias("flowers", "champion", "3")
    sidecar.poll()
    assert scene.state().version == "3"
    assert not sidecar.is_urgent


def test_polling_creates_no_registry(tmp_path: Path) -> None:
    reference, file = ModelReference("flowers", "champion"), tmp_path / "none.db"
    with pytest.raises(RegistryError, match="There is none"):
        RegistrySidecar(reference, SidecarChannel(tmp_path), f"sqlite:///{file}").begin()
    assert not file.exists()
