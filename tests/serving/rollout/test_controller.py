"""What the registry says is carried out while requests are answered."""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import numpy as np
import pytest

from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, Manifest, write
from lensmith.rollout.state import CanaryRelease, Decision
from lensmith.serving.execution.loaded_model import LoadedModel


def until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    pytest.fail(f"{what} did not happen")


def loaded(followed: Any) -> set[str]:
    return {each["version"] for each in followed.client.get("/model").json()["loaded"]}


def begin(followed: Any, rollout: CanaryRelease, path: Path) -> None:
    followed.say(rollout=rollout, challenger_path=path)
    until(lambda: rollout.challenger in loaded(followed), "the challenger")


def handed_in(followed: Any, requests: int) -> Any:
    def enough() -> Any:
        report = followed.report()
        return report if report.champion.requests + report.challenger.requests >= requests else None

    return until(enough, f"a report of {requests} requests")


def breaking(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """Have version 4 answer with what `change` makes of its probabilities."""
    infer = LoadedModel.infer
    monkeypatch.setattr(
        LoadedModel,
        "infer",
        lambda self, batch: change(infer(self, batch)) if self.version == "4" else infer(self, batch),
    )


def test_a_model_is_called_as_the_registry_calls_it(follow: Callable[..., Any], red_png: bytes) -> None:
    followed = follow()
    assert followed.client.post("/predict", content=red_png).json()["model"] == {"name": "flowers", "version": "3"}
    assert followed.client.get("/model").json()["version"] == "3"


def test_another_champion_is_served_as_soon_as_the_alias_names_it(
    follow: Callable[..., Any], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    followed = follow()
    followed.say(version="4", path=remake("next", version="other").path)
    until(lambda: followed.versions(red_png, 1) == ["4"], "version 4")
    assert 'lensmith_model_info{engine="onnxruntime",name="flowers",precision="fp32",version="3"} 0.0' in (
        followed.client.get("/metrics").text
    )


def test_a_champion_that_cannot_be_loaded_leaves_the_old_one(
    follow: Callable[..., Any], remake: Callable[..., Bundle], red_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    followed = follow()
    broken = remake("broken", version="other").path
    (broken / GRAPH).write_bytes(b"no graph")
    followed.say(version="4", path=broken)
    until(lambda: "flowers@4 cannot be served, flowers@3 stays in service" in caplog.text, "the complaint")
    assert followed.versions(red_png, 3) == ["3"] * 3


def test_a_challenger_gets_its_share_and_both_are_counted(
    follow: Callable[..., Any], rollout: Callable[..., CanaryRelease], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    followed = follow()
    begin(followed, rollout(share=30.0), remake("next", version="other").path)
    versions = Counter(followed.versions(red_png, 200))
    report = handed_in(followed, 200)
    assert 30 <= versions["4"] <= 90
    assert (report.challenger.answered, report.champion.answered) == (versions["4"], versions["3"])
    assert report.challenger.classes == {2: versions["4"]}
    assert report.challenger.latency.total() == report.challenger.work.total() == versions["4"]
    assert report.challenger.failed == report.champion.failed == 0


def test_a_request_with_the_same_identifier_goes_to_the_same_model(
    follow: Callable[..., Any], rollout: Callable[..., CanaryRelease], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    followed = follow()
    begin(followed, rollout(), remake("next", version="other").path)

    def answered_by(name: str) -> str:
        answer = followed.client.post("/predict", content=red_png, headers={"x-request-id": name})
        return str(answer.json()["model"]["version"])

    first = [answered_by(f"request-{number}") for number in range(20)]
    assert [answered_by(f"request-{number}") for number in range(20)] == first
    assert set(first) == {"3", "4"}


def test_who_names_a_version_gets_it_and_is_not_counted(
    follow: Callable[..., Any], rollout: Callable[..., CanaryRelease], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    followed = follow()
    begin(followed, rollout(share=100.0), remake("next", version="other").path)
    for version in ("3", "4"):
        answer = followed.client.post(f"/predict?model=flowers@{version}", content=red_png)
        assert answer.json()["model"]["version"] == version
    followed.versions(red_png, 1)
    report = handed_in(followed, 1)
    assert (report.champion.requests, report.challenger.requests) == (0, 1)


def test_the_first_answer_that_is_no_number_is_the_last_and_the_champion_answers_in_its_place(
    follow: Callable[..., Any],
    rollout: Callable[..., CanaryRelease],
    remake: Callable[..., Bundle],
    red_png: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed = follow()
    begin(followed, rollout(share=100.0), remake("next", version="other").path)
    breaking(monkeypatch, lambda rows: rows * np.nan)
    assert followed.versions(red_png, 5) == ["3"] * 5
    report = until(lambda: followed.report() if followed.report().stop else None, "the stop")
    assert (report.stop.guard, report.challenger.failed) == ("not-finite", 1)


def test_three_failures_in_a_row_stop_a_challenger(
    follow: Callable[..., Any],
    rollout: Callable[..., CanaryRelease],
    remake: Callable[..., Bundle],
    red_png: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed = follow()
    begin(followed, rollout(share=100.0), remake("next", version="other").path)

    def fail(_rows: Any) -> Any:
        raise RuntimeError("out of luck")

    breaking(monkeypatch, fail)
    assert followed.versions(red_png, 2) == ["3"] * 2
    batch = [("file", red_png), ("file", red_png)]
    answer = followed.client.post("/predict/batch", files=batch)
    assert [each["label"] for each in answer.json()["results"]] == ["red", "red"]
    assert answer.json()["model"]["version"] == "3"
    report = until(lambda: followed.report() if followed.report().stop else None, "the stop")
    assert (report.stop.guard, report.challenger.failed) == ("errors-in-a-row", 3)
    assert "out of luck" in report.stop.reason


def test_a_challenger_that_fails_when_its_release_has_just_ended_fails_no_client(
    follow: Callable[..., Any],
    rollout: Callable[..., CanaryRelease],
    remake: Callable[..., Bundle],
    red_png: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed = follow()
    begin(followed, rollout(share=100.0), remake("next", version="other").path)

    def late(rows: Any) -> Any:
        followed.say(decision=Decision(outcome="aborted", reason="tried"))
        until(lambda: loaded(followed) == {"3"}, "the end of the release")
        return rows * np.nan

    breaking(monkeypatch, late)
    assert followed.versions(red_png, 1) == ["3"]


def test_bad_images_count_against_nobody(
    follow: Callable[..., Any], rollout: Callable[..., CanaryRelease], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    followed = follow()
    begin(followed, rollout(share=100.0), remake("next", version="other").path)
    for _ in range(4):
        assert followed.client.post("/predict", content=red_png[:60]).status_code == 422
        assert followed.client.post("/predict/batch", files=[("file", red_png[:60])]).status_code == 200
    followed.versions(red_png, 1)
    report = handed_in(followed, 1)
    assert (report.challenger.answered, report.challenger.failed, report.stop) == (1, 0, None)


def test_a_challenger_that_cannot_be_loaded_is_stopped_for_that(
    follow: Callable[..., Any], rollout: Callable[..., CanaryRelease], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    followed = follow()
    broken = remake("broken", version="other").path
    (broken / GRAPH).write_bytes(b"no graph")
    followed.say(rollout=rollout(share=100.0), challenger_path=broken)
    stop = until(lambda: followed.report().stop, "the stop")
    assert stop.guard == "load"
    assert followed.versions(red_png, 3) == ["3"] * 3


def test_in_the_shadow_nobody_sees_the_challenger_and_agreement_is_counted(
    follow: Callable[..., Any], rollout: Callable[..., CanaryRelease], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    followed = follow()
    begin(followed, rollout(share=100.0, shadow=True), remake("next", version="other").path)
    assert followed.versions(red_png, 20) == ["3"] * 20
    report = until(lambda: followed.report() if followed.report().challenger.compared else None, "a copy")
    assert report.challenger.compared == report.challenger.agreed == report.challenger.answered
    assert not report.challenger.latency


def test_mapped_labels_count_as_the_champions(
    follow: Callable[..., Any],
    rollout: Callable[..., CanaryRelease],
    tmp_path: Path,
    colour_bundle: Bundle,
    red_png: bytes,
) -> None:
    labels = ("blue", "green", "rosso")

    def rename(folder: Path) -> Manifest:
        shutil.copy(colour_bundle.path / GRAPH, folder)
        colour_bundle.golden().save(folder / GOLDEN, labels)
        return colour_bundle.manifest.model_copy(update={"labels": labels})

    renamed = write(tmp_path / "renamed", rename).path
    followed = follow()
    begin(followed, rollout(share=100.0, mapping={"rosso": "red"}), renamed)
    answer = followed.client.post("/predict", content=red_png).json()
    assert (answer["label"], answer["model"]["version"]) == ("rosso", "4")
    for label in ("red", "rosso"):  # the client knows the champion's name, or the one that it was answered
        given = followed.client.post("/predict", content=red_png).json()["request_id"]
        told = followed.client.post("/feedback", json={"request_id": given, "label": label})
        assert (told.status_code, told.json()["right"]) == (200, True)
    assert not followed.client.post("/feedback", json={"request_id": given, "label": label}).json()["new"]
    report = handed_in(followed, 3)
    assert (report.challenger.classes, report.challenger.right) == ({2: 3}, 2)


@pytest.mark.parametrize(("outcome", "champion"), [("promoted", "4"), ("rolled_back", "3"), ("aborted", "3")])
def test_a_decision_ends_the_release(
    follow: Callable[..., Any],
    rollout: Callable[..., CanaryRelease],
    remake: Callable[..., Bundle],
    red_png: bytes,
    outcome: str,
    champion: str,
) -> None:
    followed = follow()
    path = remake("next", version="other").path
    begin(followed, rollout(), path)
    ended = Decision.model_validate({"outcome": outcome, "reason": "tried"})
    followed.say(decision=ended, **({"version": "4", "path": path} if outcome == "promoted" else {}))
    until(lambda: loaded(followed) == {champion}, "the end of the release")
    assert followed.versions(red_png, 3) == [champion] * 3
    state = followed.client.get("/rollout").json()
    assert (state["decision"]["outcome"], state["rollout"]["challenger"]) == (outcome, "4")
    assert "path" not in state
    assert f'lensmith_rollout_decisions_total{{outcome="{outcome}"}} 1.0' in followed.client.get("/metrics").text


def test_who_follows_the_registry_takes_no_other_model_by_hand(
    follow: Callable[..., Any], remake: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a secret of these tests, 32 bytes or more"
    monkeypatch.setenv("LENSMITH_JWT_SECRET", secret)
    claims = {
        "sub": "test",
        "iss": "lensmith",
        "aud": "lensmith",
        "exp": int(time.time()) + 600,
        "scope": "admin predict",
    }
    token = {"authorization": f"Bearer {jwt.encode(claims, secret)}"}
    followed = follow()
    path = str(remake("other", version="other").path)
    answer = followed.client.post("/admin/model", json={"bundle": path}, headers=token)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:lensmith:problem:follows-registry")


def test_without_a_registry_nothing_is_said_of_one(client: Any) -> None:
    said = client.get("/rollout").json()
    assert said.pop("comparison") == {}
    assert set(said.values()) == {None}
