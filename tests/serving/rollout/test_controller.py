"""Rollout controller and canary split: the desired state is carried out while requests are answered."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.faults import eventually
from fixtures.tokens import SECRET, token
from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, seal
from lensmith.rollout.state import Decision
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.rollout import controller

Follow = Callable[..., Any]


@pytest.fixture
def other(remake: Callable[..., Bundle]) -> Path:
    """Another bundle of the same model."""
    return remake("next", version="other").path


@pytest.fixture
def broken(remake: Callable[..., Bundle]) -> Path:
    """A bundle that cannot be loaded."""
    path = remake("broken", version="other").path
    (path / GRAPH).write_bytes(b"no graph")
    return path


@pytest.fixture
def canary(follow: Follow, rollout: Callable[..., Any], other: Path) -> Follow:
    """`canary(path, **fields)`: a service with a canary that is under way, by default of `other`."""

    def begin(path: Path = other, **fields: Any) -> Any:
        service = follow()
        service.update(rollout=rollout(**fields), challenger_path=path)
        eventually(lambda: "4" in loaded(service))
        return service

    return begin


def loaded(service: Any) -> set[str]:
    return {each["version"] for each in service.client.get("/model").json()["loaded"]}


def report_of(service: Any, requests: int) -> Any:
    """The service's report, once it counts so many requests."""

    def complete() -> Any:
        report = service.report()
        return report if report.champion.requests + report.challenger.requests >= requests else None

    return eventually(complete)


def stop_of(service: Any) -> Any:
    return eventually(lambda: service.report().stop)


def break_challenger(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """Have version 4 answer with what `change` makes of its probabilities."""
    infer = LoadedModel.infer

    def broken(model: LoadedModel, batch: Any) -> Any:
        return change(infer(model, batch)) if model.version == "4" else infer(model, batch)

    monkeypatch.setattr(LoadedModel, "infer", broken)


def test_a_model_has_its_name_and_version_from_the_registry(follow: Follow, red_png: bytes) -> None:
    service = follow()
    assert service.client.post("/predict", content=red_png).json()["model"] == {"name": "flowers", "version": "3"}
    assert service.client.get("/model").json()["version"] == "3"


def test_another_champion_is_served_as_soon_as_the_alias_names_it(follow: Follow, other: Path, red_png: bytes) -> None:
    service = follow()
    service.update(version="4", path=other)
    eventually(lambda: service.versions(red_png, 1) == ["4"])
    gone = 'lensmith_model_info{engine="onnxruntime",name="flowers",precision="fp32",version="3"} 0.0'
    assert gone in service.client.get("/metrics").text


def test_the_same_version_with_another_bundle_is_loaded(follow: Follow, other: Path, red_png: bytes) -> None:
    service = follow()
    service.update(path=other)  # as from a registry that was replaced by another
    eventually(lambda: service.client.get("/model").json()["loaded"][0]["version"] == "3")
    eventually(lambda: service.client.app.state.service.models.active.path == other)
    assert service.versions(red_png, 1) == ["3"]


def test_a_registry_that_is_not_followed_is_seen_while_the_service_answers(follow: Follow, red_png: bytes) -> None:
    service = follow()
    assert service.client.get("/readyz").json() == {"status": "ready"}
    assert "lensmith_registry_followed 1.0" in service.client.get("/metrics").text
    service.update(problem="There is no alias champion.")
    eventually(lambda: "lensmith_registry_followed 0.0" in service.client.get("/metrics").text)
    ready = service.client.get("/readyz")
    assert (ready.status_code, "not followed" in ready.json()["detail"]) == (200, True)
    assert "champion" not in ready.json()["detail"]  # anybody may ask
    assert service.client.get("/rollout").json()["problem"] == "There is no alias champion."
    assert service.versions(red_png, 1) == ["3"]
    service.update(problem="")
    eventually(lambda: "lensmith_registry_followed 1.0" in service.client.get("/metrics").text)


def test_a_sidecar_that_no_longer_polls_is_seen(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "SILENT_S", 0.0)
    service = follow(poll_s=0.6)
    service.channel.note_poll()
    eventually(lambda: "lensmith_registry_followed 0.0" in service.client.get("/metrics").text)
    assert "has not polled" in service.client.get("/rollout").json()["problem"]
    service.channel.note_poll()
    eventually(lambda: "lensmith_registry_followed 1.0" in service.client.get("/metrics").text)


def test_counts_whose_file_others_remove_are_written_again(canary: Follow, red_png: bytes) -> None:
    service = canary()
    service.versions(red_png, 4)
    report_of(service, 4)
    shutil.rmtree(service.channel.folder)
    eventually(lambda: list(service.channel.folder.glob("report-*.json")))
    service.versions(red_png, 2)
    report_of(service, 6)


def test_a_champion_that_cannot_be_loaded_leaves_the_old_one_in_service(
    follow: Follow, broken: Path, red_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    service = follow()
    service.update(version="4", path=broken)
    eventually(lambda: "flowers@4 cannot be served" in caplog.text)
    assert service.versions(red_png, 3) == ["3"] * 3


def test_a_challenger_gets_its_share_and_both_are_counted(canary: Follow, red_png: bytes) -> None:
    service = canary(share=30.0)
    versions = Counter(service.versions(red_png, 200))
    report = report_of(service, 200)
    assert 30 <= versions["4"] <= 90
    assert (report.challenger.answered, report.champion.answered) == (versions["4"], versions["3"])
    assert report.challenger.classes == {2: versions["4"]}
    assert report.challenger.latency.total() == report.challenger.work.total() == versions["4"]
    assert report.challenger.failed == report.champion.failed == 0


def test_a_request_with_the_same_identifier_goes_to_the_same_model(canary: Follow, red_png: bytes) -> None:
    service = canary()

    def answered_by(name: str) -> str:
        answer = service.client.post("/predict", content=red_png, headers={"x-request-id": name})
        return str(answer.json()["model"]["version"])

    first = [answered_by(f"request-{number}") for number in range(20)]
    assert [answered_by(f"request-{number}") for number in range(20)] == first
    assert set(first) == {"3", "4"}


def test_a_request_that_names_a_version_gets_it_and_is_not_counted(canary: Follow, red_png: bytes) -> None:
    service = canary(share=100.0)
    for version in ("3", "4"):
        answer = service.client.post(f"/predict?model=flowers@{version}", content=red_png)
        assert answer.json()["model"]["version"] == version
    service.versions(red_png, 1)
    report = report_of(service, 1)
    assert (report.champion.requests, report.challenger.requests) == (0, 1)


def test_the_first_answer_that_is_not_finite_stops_the_challenger_and_the_champion_answers(
    canary: Follow, red_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = canary(share=100.0)
    break_challenger(monkeypatch, lambda rows: rows * np.nan)
    assert service.versions(red_png, 5) == ["3"] * 5
    assert stop_of(service).guard == "not-finite"
    assert service.report().challenger.failed == 1


def test_three_failures_in_a_row_stop_a_challenger(
    canary: Follow, red_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = canary(share=100.0)

    def fail(_rows: Any) -> Any:
        raise RuntimeError("out of luck")

    break_challenger(monkeypatch, fail)
    assert service.versions(red_png, 2) == ["3"] * 2
    answer = service.client.post("/predict/batch", files=[("file", red_png), ("file", red_png)]).json()
    assert [each["label"] for each in answer["results"]] == ["red", "red"]
    assert answer["model"]["version"] == "3"
    stop = stop_of(service)
    assert (stop.guard, service.report().challenger.failed) == ("errors-in-a-row", 3)
    assert "out of luck" in stop.reason


def test_a_challenger_that_fails_just_after_its_rollout_has_ended_fails_no_client(
    canary: Follow, red_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = canary(share=100.0)

    def late(rows: Any) -> Any:
        service.update(decision=Decision(outcome="aborted", reason="tried"))
        eventually(lambda: loaded(service) == {"3"})
        return rows * np.nan

    break_challenger(monkeypatch, late)
    assert service.versions(red_png, 1) == ["3"]


def test_unusable_images_count_for_neither_model(canary: Follow, red_png: bytes) -> None:
    service = canary(share=100.0)
    for _ in range(4):
        assert service.client.post("/predict", content=red_png[:60]).status_code == 422
        assert service.client.post("/predict/batch", files=[("file", red_png[:60])]).status_code == 200
    service.versions(red_png, 1)
    report = report_of(service, 1)
    assert (report.challenger.answered, report.challenger.failed, report.stop) == (1, 0, None)


def test_a_challenger_that_cannot_be_loaded_is_stopped(
    follow: Follow, rollout: Callable[..., Any], broken: Path, red_png: bytes
) -> None:
    service = follow()
    service.update(rollout=rollout(share=100.0), challenger_path=broken)
    assert stop_of(service).guard == "load"
    assert service.versions(red_png, 3) == ["3"] * 3


def test_in_shadow_mode_nobody_sees_the_challenger_and_agreement_is_counted(canary: Follow, red_png: bytes) -> None:
    service = canary(share=100.0, shadow=True)
    assert service.versions(red_png, 20) == ["3"] * 20
    eventually(lambda: service.report().challenger.compared)
    counts = service.report().challenger
    assert counts.compared == counts.agreed == counts.answered
    assert not counts.latency


def test_mapped_labels_count_as_the_champions(
    canary: Follow, tmp_path: Path, colour_bundle: Bundle, red_png: bytes
) -> None:
    labels = ("blue", "green", "rosso")

    renamed = tmp_path / "renamed"
    renamed.mkdir()
    shutil.copy(colour_bundle.path / GRAPH, renamed)
    colour_bundle.golden().save(renamed / GOLDEN, labels)
    seal(renamed, colour_bundle.manifest.model_copy(update={"labels": labels}))
    service = canary(renamed, share=100.0, mapping={"rosso": "red"})
    answer = service.client.post("/predict", content=red_png).json()
    assert (answer["label"], answer["model"]["version"]) == ("rosso", "4")
    for label in ("red", "rosso"):  # the champion's name, and the one that was answered
        request_id = service.client.post("/predict", content=red_png).json()["request_id"]
        feedback = {"request_id": request_id, "label": label}
        given, again = (service.client.post("/feedback", json=feedback).json() for _ in range(2))
        assert (given["right"], given["new"], again["new"]) == (True, True, False)
    eventually(lambda: service.report().challenger.right == 2)  # a report may be older than the last feedback
    assert service.report().challenger.classes == {2: 3}


def test_feedback_on_images_that_one_of_both_models_learnt_from_compares_neither(
    canary: Follow, remake: Callable[..., Bundle], tmp_path: Path, red_png: bytes
) -> None:
    (tmp_path / "red.png").write_bytes(red_png)
    service = canary(remake("learnt", version="other", learnt=[tmp_path / "red.png"]).path)
    told: Counter[tuple[str, str]] = Counter()
    for image in ["known", "other"] * 10:
        bytes_sent = red_png if image == "known" else red_png + b"other bytes behind the picture"
        answer = service.client.post("/predict", content=bytes_sent).json()
        given = service.client.post("/feedback", json={"request_id": answer["request_id"], "label": "red"}).json()
        assert given["new"]
        told[image, answer["model"]["version"]] += 1
    report = eventually(lambda: (found := service.report()).champion.right + found.challenger.right == 10 and found)
    assert (report.champion.known, report.champion.right) == (told["known", "3"], told["other", "3"])
    assert (report.challenger.known, report.challenger.right) == (told["known", "4"], told["other", "4"])
    assert min(told.values()) > 0
    assert service.client.get("/feedback").json()["versions"][0]["labels"] == told["known", "3"] + told["other", "3"]


@pytest.mark.parametrize(("outcome", "champion"), [("promoted", "4"), ("rolled_back", "3"), ("aborted", "3")])
def test_a_decision_ends_the_rollout(canary: Follow, other: Path, red_png: bytes, outcome: str, champion: str) -> None:
    service = canary()
    decision = Decision.model_validate({"outcome": outcome, "reason": "tried"})
    service.update(decision=decision, **({"version": "4", "path": other} if outcome == "promoted" else {}))
    eventually(lambda: loaded(service) == {champion})
    assert service.versions(red_png, 3) == [champion] * 3
    state = service.client.get("/rollout").json()
    assert (state["decision"]["outcome"], state["rollout"]["challenger"]) == (outcome, "4")
    assert "path" not in state
    assert f'lensmith_rollout_decisions_total{{outcome="{outcome}"}} 1.0' in service.client.get("/metrics").text


def test_a_service_that_follows_the_registry_refuses_a_hot_reload_by_hand(
    follow: Follow, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
    headers = {"authorization": f"Bearer {token(scope='admin')}"}
    answer = follow().client.post("/admin/model", json={"bundle": str(other)}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:lensmith:problem:follows-registry")


def test_without_a_registry_the_state_is_null(client: Any) -> None:
    state = client.get("/rollout").json()
    assert state.pop("comparison") == {}
    assert set(state.values()) == {None}
