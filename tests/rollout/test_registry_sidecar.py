"""The registry sidecar of a service, in the process of the test: one poll after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith import api
from lensmith.bundle.format import GRAPH, Bundle
from lensmith.errors import RegistryError, RegistryUnreachableError
from lensmith.registry.pull import cached
from lensmith.registry.references import ModelReference
from lensmith.rollout import registry_sidecar
from lensmith.rollout.ledger import Ledger
from lensmith.rollout.metrics import ModelCounts
from lensmith.rollout.registry_sidecar import RegistrySidecar
from lensmith.rollout.report import RolloutReport, StopReason
from lensmith.rollout.sidecar_channel import SidecarChannel

pytestmark = pytest.mark.slow


class Scene:
    """A model with three versions, of which the first is the champion, and sidecars of it."""

    def __init__(self, store: str, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.channels: list[SidecarChannel] = []

    def sidecar(self, which: str = "champion") -> RegistrySidecar:
        folder = self.folder / f"channel{len(self.channels)}"
        folder.mkdir()
        self.channels.append(SidecarChannel(folder))
        return RegistrySidecar(ModelReference("colours", which), SidecarChannel(folder), self.store)

    def begun(self) -> RegistrySidecar:
        found = self.sidecar()
        found.begin()
        return found

    def under_way(self, **settings: Any) -> RegistrySidecar:
        """A sidecar that has begun, and sees the rollout of version 2."""
        sidecar = self.begun()
        self.start("2", **settings)
        sidecar.poll()
        return sidecar

    def state(self, number: int = 0) -> Any:
        return self.channels[number].desired_state()

    def start(self, version: str, **settings: Any) -> Any:
        return api.Rollout("colours", self.store).start(version, **settings)

    def count(self, number: int = 0, stop: StopReason | None = None, **challenger: int) -> None:
        """Write the report of a process of the service."""
        report = RolloutReport("colours-1", ModelCounts(answered=5000), ModelCounts(**challenger), stop)
        self.channels[number].write_report(report.as_dict())

    def aliases(self) -> dict[str, str]:
        model = api.Registry(self.store).model("colours")
        return {alias: version.version for version in model.versions for alias in version.aliases}


@pytest.fixture
def scene(workspace: Path, remake: Callable[..., Bundle], tmp_path: Path) -> Scene:
    store = f"sqlite:///{workspace / 'runs' / 'mlflow.db'}"
    for number in (1, 2, 3):
        path = remake(f"version-{number}", version=f"run-{number}").path
        api.Registry(store).push(path, alias="champion" if number == 1 else None)
    return Scene(store, tmp_path)


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
    assert (scene.state().version, scene.state().rollout) == ("1", None)
    api.Registry(scene.store).set_alias("colours@2", "champion")
    sidecar.poll()
    assert scene.state().version == "2"
    assert Bundle.load(scene.state().path).manifest.version == "run-2"


def test_an_unchanged_state_is_not_written_again(scene: Scene) -> None:
    sidecar = scene.begun()
    before = scene.state()
    sidecar.poll()
    assert scene.state() is before


def test_a_champion_that_cannot_be_fetched_leaves_the_old_one(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar = scene.begun()
    version = api.Registry(scene.store).version("colours@2")
    (Path(version.source.removeprefix("file://")) / GRAPH).write_bytes(b"another")
    api.Registry(scene.store).set_alias("colours@2", "champion")
    sidecar.poll()
    sidecar.poll()
    assert scene.state().version == "1"
    assert capsys.readouterr().err.count("Version 1 stays in service") == 1
    assert not cached(version.content).exists()


def test_a_challenger_whose_files_have_changed_is_rolled_back(scene: Scene) -> None:
    sidecar = scene.begun()
    scene.start("2")
    version = api.Registry(scene.store).version("colours@2")
    (Path(version.source.removeprefix("file://")) / GRAPH).write_bytes(b"another")
    (cached(version.content) / GRAPH).write_bytes(b"another")  # as it came, it was whole
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
    scene.start("2")
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


def test_another_champion_meanwhile_aborts_the_rollout(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = scene.under_way()
    # lensmith refuses that while a rollout is under way; MLflow's own page does not.
    registry_sidecar.client(scene.store).set_registered_model_alias("colours", "champion", "3")
    sidecar.poll()
    assert (scene.state().decision.outcome, scene.state().decision.guard) == ("aborted", "champion")
    sidecar.poll()
    assert scene.state().version == "3"
    assert scene.aliases() == {"champion": "3"}


def test_a_promotion_that_somebody_rolls_back_is_not_repeated(scene: Scene) -> None:
    sidecar = scene.begun()
    scene.start("2")
    api.Rollout("colours", scene.store).promote()
    sidecar.poll()
    assert scene.state().version == "2"
    api.Registry(scene.store).rollback("colours")
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
    assert api.Rollout("colours", scene.store).status().decision is None
    away(False)
    sidecar.poll()
    assert scene.state().reachable
    assert api.Rollout("colours", scene.store).status().decision == scene.state().decision


def test_offline_nothing_is_promoted(scene: Scene, away: Callable[[bool], None]) -> None:
    sidecar = scene.under_way(auto_promote=True, promote_after=500)
    away(True)
    for answered in (0, 300, 600, 900, 1200, 1500):
        scene.count(answered=answered)
        sidecar.poll()
    assert scene.state().decision is None


def test_an_offline_start_takes_the_cached_state_and_fails_without_one(
    scene: Scene, away: Callable[[bool], None]
) -> None:
    away(True)
    with pytest.raises(RegistryUnreachableError):
        scene.begun()
    away(False)
    scene.begun()
    away(True)
    scene.begun()
    assert (scene.state(2).version, scene.state(2).reachable) == ("1", False)


def test_an_alias_that_is_removed_leaves_what_is_served(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar = scene.begun()
    registry_sidecar.client(scene.store).delete_registered_model_alias("colours", "champion")
    sidecar.poll()
    assert scene.state().version == "1"
    assert "alias champion" in capsys.readouterr().err
    with pytest.raises(RegistryError, match="alias champion"):
        scene.begun()


@pytest.mark.parametrize("garbled", ['{"champion": 3}', "no JSON", "[]"])
def test_a_report_that_somebody_garbled_is_left_out(scene: Scene, garbled: str) -> None:
    sidecar = scene.under_way()
    client = registry_sidecar.client(scene.store)
    ledger = Ledger.open(client, "colours", create=False)
    assert ledger is not None
    client.set_tag(ledger.run, "rollout.1.counts.somebody", garbled)
    scene.count(answered=200, failed=400)
    sidecar.poll()
    assert scene.state().decision.guard == "errors"


def test_a_sidecar_that_takes_anothers_place_counts_nothing_twice(scene: Scene) -> None:
    sidecar = scene.under_way()
    scene.count(answered=200)
    sidecar.poll()
    again = RegistrySidecar(
        ModelReference("colours", "champion"), SidecarChannel(scene.channels[0].folder), scene.store
    )
    again.begin()
    again.poll()
    assert api.Rollout("colours", scene.store).status().comparison["challenger"]["requests"] == 200


def test_an_offline_decision_about_one_rollout_ends_no_other(scene: Scene, away: Callable[[bool], None]) -> None:
    sidecar = scene.under_way()
    away(True)
    scene.count(answered=3, failed=3, stop=StopReason("not-finite", "no number"))
    sidecar.poll()
    assert scene.state().decision.guard == "not-finite"
    api.Rollout("colours", scene.store).abort()
    scene.start("3")
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
    registry_sidecar.client(scene.store).set_registered_model_alias("colours", "champion", "3")
    sidecar.poll()
    assert scene.state().version == "3"
    assert not sidecar.is_urgent


def test_polling_creates_no_registry(tmp_path: Path) -> None:
    (tmp_path / "channel").mkdir()
    with pytest.raises(RegistryError, match="There is none"):
        RegistrySidecar(
            ModelReference("colours", "champion"), SidecarChannel(tmp_path / "channel"), f"sqlite:///{tmp_path}/none.db"
        ).begin()
    assert not (tmp_path / "none.db").exists()


def test_a_garbled_cached_state_is_ignored(scene: Scene, away: Callable[[bool], None]) -> None:
    scene.begun()._writer.cache_file.write_text("{")
    away(True)
    with pytest.raises(RegistryUnreachableError):
        scene.begun()
