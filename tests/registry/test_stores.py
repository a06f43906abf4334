"""The same life of a model in a SQLite file, in PostgreSQL with a folder, and on an `mlflow server`."""

import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lensmith
from fixtures.registries import Server
from lensmith.bundle.format import Bundle
from lensmith.core.machine import cache_dir
from lensmith.errors import FallbackWarning, RegistryError, RegistryUnreachableError, RolloutError
from lensmith.registry import client
from lensmith.rollout.ledger import Ledger
from lensmith.rollout.state import CanaryRelease, Decision

Remake = Callable[..., Bundle]


@pytest.mark.slow
def test_a_model_lives_alike_in_every_store(address: str, remake: Remake, shared_colours: Path) -> None:
    old, new = (remake(f"bundle-{version}", name="flowers", version=version) for version in ("old", "new"))
    first = lensmith.Registry().push(old.path, alias="champion")
    second = lensmith.Registry().push(new.path, alias="challenger")
    again = lensmith.Registry().push(new.path)
    assert (first.version.version, second.version.version, again.version.version) == ("1", "2", "2")
    assert (first.new, second.new, again.new) == (True, True, False)
    (model,) = lensmith.Registry().models()
    assert model.aliases == {"challenger": "2", "champion": "1"}

    classifier = lensmith.load("flowers@champion")
    assert classifier.bundle.manifest.version == "old"
    assert classifier.predict(shared_colours / "red" / "000.png")[0].label == "red"
    assert lensmith.describe("flowers@2").manifest.version == "new"

    there = client.client(client.uri())
    ledger = Ledger.open(there, "flowers")
    begun = ledger.begin(CanaryRelease(id="", name="flowers", champion="1", challenger="2"))
    assert begun.id == "flowers-1"
    with pytest.raises(RolloutError, match="under way"):
        lensmith.Registry().set_alias("flowers@2", "champion")
    ledger.report(1, "replica:8001", {"challenger": {"answered": 3}})
    state = ledger.latest()
    assert state is not None
    assert state.reports == {"replica_8001": {"challenger": {"answered": 3}}}
    standing = ledger.decide(1, Decision(outcome="promoted", reason="better"))
    assert ledger.decide(1, Decision(outcome="aborted", reason="late")) == standing
    ledger.apply(state)
    assert lensmith.Registry().model("flowers").aliases == {"champion": "2", "previous": "1"}

    assert lensmith.Registry().rollback("flowers").now == "1"
    assert lensmith.load("flowers@champion").bundle.manifest.version == "old"
    with pytest.raises(RegistryError, match="There is none"):
        lensmith.load("flowers@challenger")


@pytest.mark.slow
def test_several_that_begin_at_once_share_one_ledger(address: str, remake: Remake) -> None:
    name = f"contested-{uuid.uuid4().hex}"
    lensmith.Registry().push(remake("bundle", name=name).path, alias="champion")
    clients = [client.client(client.uri()) for _ in range(4)]

    def start(number: int) -> str:
        ledger = Ledger.open(clients[number], name)
        try:
            return ledger.begin(CanaryRelease(id="", name=name, champion="1", challenger="1", by=str(number))).by
        except RolloutError:
            return ""

    with ThreadPoolExecutor(4) as pool:
        winners = [by for by in pool.map(start, range(4)) if by]
    assert len(winners) == 1, winners
    ledgers = [Ledger.open(each, name) for each in clients]
    assert len({ledger.run for ledger in ledgers}) == 1
    state = ledgers[0].latest()
    assert state is not None
    assert state.rollout.by == winners[0]


@pytest.mark.slow
def test_replicas_that_apply_a_decision_at_once_do_not_disturb_one_another(address: str, remake: Remake) -> None:
    name = f"applied-{uuid.uuid4().hex}"
    for version in ("a", "b"):
        lensmith.Registry().push(
            remake(version, name=name, version=version).path, alias="champion" if version == "a" else None
        )
    there = client.client(client.uri())
    there.set_registered_model_alias(name, "challenger", "2")
    ledger = Ledger.open(there, name)
    ledger.begin(CanaryRelease(id="", name=name, champion="1", challenger="2"))
    clients = [client.client(client.uri()) for _ in range(4)]

    def end(number: int) -> str:
        mine = Ledger.open(clients[number], name)
        decision = mine.decide(1, Decision(outcome="promoted", reason="better", by=str(number)))
        state = mine.latest()
        assert state is not None
        mine.apply(state)
        return decision.by

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(end, range(4)))) == 1
    assert lensmith.Registry().model(name).aliases == {"champion": "2", "previous": "1"}


@pytest.mark.slow
def test_what_a_name_meant_last_is_used_while_the_server_is_away(
    mlflow_server: Server,
    workspace: Path,
    remake: Remake,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LENSMITH_TRACKING_URI", mlflow_server.url)
    lensmith.Registry().push(remake("bundle", name="remembered", version="kept").path, alias="champion")
    gone = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RegistryUnreachableError, match=gone):
        lensmith.Registry(gone).pull("remembered@champion")
    lensmith.load("remembered@champion")
    known = sorted((cache_dir() / "registry" / "known").iterdir())
    monkeypatch.setattr(client, "_contact_server", _refuse)
    with pytest.warns(FallbackWarning, match="version 1, as before"):
        assert lensmith.load("remembered@champion").bundle.manifest.version == "kept"
    shutil.rmtree(known[0].parent)
    with pytest.raises(RegistryUnreachableError):
        lensmith.load("remembered@champion")


def _refuse(address: str) -> None:
    raise RegistryUnreachableError("An answer was expected.", f"{address} is away.", "Wait.")
