"""`/feedback`: true labels of answers, which count once each."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fixtures.faults import eventually
from lensmith import api
from lensmith.feedback import storage

ClientOf = Callable[..., TestClient]


def predict(client: TestClient, image: bytes, **headers: str) -> str:
    """The request's identifier."""
    answer = client.post("/predict", content=image, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def tell(client: TestClient, request_id: str, label: str, **more: Any) -> Any:
    return client.post("/feedback", json={"request_id": request_id, "label": label, **more})


def kind(answer: Any) -> str:
    return str(answer.json()["type"].rpartition(":")[2])


@pytest.fixture
def keeping(client_of: ClientOf, tmp_path: Path) -> Iterator[tuple[TestClient, Path]]:
    """A service that keeps every upload, and where."""
    folder = tmp_path / "kept"
    with client_of(keep=folder, keep_share=1.0) as client:
        yield client, folder


def uploads(folder: Path, count: int) -> list[storage.Upload]:
    """Those in the folder, once there are so many."""
    eventually(lambda: len(storage.stored_uploads(folder)) >= count)
    found = [stored.read() for stored in storage.stored_uploads(folder)]
    assert len(found) == count
    return [upload for upload in found if upload]


def test_an_answer_is_right_or_wrong_by_the_label_that_is_sent(new_client: TestClient, red_png: bytes) -> None:
    client = new_client
    right = tell(client, predict(client, red_png), "red")
    assert right.status_code == 200
    assert right.json() == {
        "label": "red",
        "answered": "red",
        "right": True,
        "new": True,
        "noted": False,
        "model": {"name": "colours", "version": "1"},
    }
    wrong = tell(client, predict(client, red_png), "blue").json()
    assert (wrong["answered"], wrong["right"], wrong["new"]) == ("red", False, True)
    metrics = client.get("/metrics").text
    assert 'lensmith_feedback_total{outcome="right",version="1"} 1.0' in metrics
    assert 'lensmith_feedback_total{outcome="wrong",version="1"} 1.0' in metrics


def test_accuracy_is_told_for_each_version_with_its_interval(new_client: TestClient, red_png: bytes) -> None:
    client = new_client
    assert client.get("/feedback").json() == {"versions": []}
    for label in ("red", "red", "red", "blue"):
        tell(client, predict(client, red_png), label)
    (version,) = client.get("/feedback").json()["versions"]
    low, high = version.pop("interval")
    assert version == {"name": "colours", "version": "1", "labels": 4, "right": 3, "accuracy": 0.75}
    assert (round(low, 4), round(high, 4)) == (0.3006, 0.9544)  # by scipy's proportion_ci(method="wilson")


def test_an_answer_counts_once(client: TestClient, red_png: bytes) -> None:
    before = sum(each["labels"] for each in client.get("/feedback").json()["versions"])
    request_id = predict(client, red_png)
    assert tell(client, request_id, "red").json()["new"]
    assert tell(client, request_id, "red").json()["new"] is False
    other = tell(client, request_id, "blue")
    assert (other.status_code, kind(other)) == (409, "feedback-given")
    assert client.get("/feedback").json()["versions"][0]["labels"] == before + 1


def test_an_identifier_that_was_judged_is_not_taken_for_another_answer(
    client: TestClient, shared_colours: Path, red_png: bytes
) -> None:
    mine = {"X-Request-ID": "always-the-same"}
    predict(client, red_png, **mine)
    predict(client, (shared_colours / "blue" / "000.png").read_bytes(), **mine)
    assert tell(client, "always-the-same", "blue").json()["answered"] == "blue"  # the last one
    predict(client, red_png, **mine)
    assert tell(client, "always-the-same", "red").status_code == 409


def test_an_unknown_identifier_is_no_such_answer(client: TestClient, red_png: bytes) -> None:
    request_id = predict(client, red_png)
    for asked in (tell(client, "never-seen", "red"), tell(client, request_id, "red", image=1)):
        assert (asked.status_code, kind(asked)) == (404, "no-such-answer")


def test_a_label_that_the_model_does_not_have_is_refused_with_those_that_are_near(
    client: TestClient, red_png: bytes
) -> None:
    request_id = predict(client, red_png)
    refused = tell(client, request_id, "gren")
    assert (refused.status_code, kind(refused)) == (422, "no-such-label")
    assert "green" in refused.json()["detail"]
    assert tell(client, request_id, "red").json()["new"]  # it was not used up


def test_a_label_is_the_models_if_it_differs_in_what_nobody_sees(client: TestClient, red_png: bytes) -> None:
    told = tell(client, predict(client, red_png), " re\u200bd\u00a0").json()
    assert (told["label"], told["right"]) == ("red", True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"request_id": "a"}',
        b'{"request_id": "../../etc", "label": ""}',
        b'{"request_id": "a b", "label": "red"}',
        b'{"request_id": 7, "label": "red"}',
        b'{"request_id": "a", "label": "red", "image": -1}',
        b'{"request_id": "a", "label": "red", "image": 1e30}',
        b'{"request_id": "a", "label": ["red"]}',
        b"[" * 10_000,
    ],
)
def test_what_is_no_feedback_is_refused(client: TestClient, body: bytes) -> None:
    refused = client.post("/feedback", content=body)
    assert (refused.status_code, kind(refused)) == (422, "invalid-request")


def test_a_method_that_is_not_for_this_address_is_told_which_are(client: TestClient) -> None:
    refused = client.delete("/feedback")
    assert (refused.status_code, kind(refused), refused.headers["allow"]) == (
        405,
        "method-not-allowed",
        "GET, HEAD, POST",
    )


def test_a_long_body_is_refused_before_it_is_read(client: TestClient) -> None:
    refused = client.post("/feedback", content=b"x" * 20_000)
    assert (refused.status_code, kind(refused)) == (413, "too-large")


def test_the_images_of_a_batch_are_judged_by_their_place(client: TestClient, shared_colours: Path) -> None:
    files = [("file", (shared_colours / label / "000.png").read_bytes()) for label in ("red", "blue")]
    files.insert(1, ("file", b"no image"))
    answer = client.post("/predict/batch", files=files).json()
    assert [each["label"] for each in answer["results"]] == ["red", None, "blue"]
    assert tell(client, answer["request_id"], "blue", image=2).json()["right"]
    assert tell(client, answer["request_id"], "red").json()["right"]
    assert tell(client, answer["request_id"], "red", image=1).status_code == 404


def test_instances_keep_their_places_when_one_is_unusable(client: TestClient, shared_colours: Path) -> None:
    files = [shared_colours / label / "000.png" for label in ("red", "blue")]
    red, blue = (base64.b64encode(file.read_bytes()).decode() for file in files)
    answer = client.post("/invocations", json={"instances": [{"b64": "?"}, {"b64": blue}, {"b64": red}]}).json()
    assert [each["label"] for each in answer["results"]] == [None, "blue", "red"]
    assert tell(client, answer["request_id"], "blue", image=1).json()["right"]
    assert tell(client, answer["request_id"], "red", image=2).json()["right"]


def test_feedback_needs_a_token_that_predicts(client_of: ClientOf, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    token = api.token("tester", secret_file=secret)
    with client_of(jwt_secret_file=secret) as client:
        assert tell(client, "a", "red").status_code == client.get("/feedback").status_code == 401
        client.headers["Authorization"] = f"Bearer {token.text}"
        assert tell(client, "a", "red").status_code == 404
        assert client.get("/feedback").status_code == 200


def test_no_upload_is_kept_unless_that_is_asked_for(client: TestClient, red_png: bytes, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    predict(client, red_png)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_truth_is_noted_beside_a_kept_upload(keeping: tuple[TestClient, Path], red_png: bytes) -> None:
    client, folder = keeping
    request_id = predict(client, red_png)
    assert tell(client, request_id, "blue").json()["noted"]
    (upload,) = uploads(folder, 1)
    assert (upload.request_id, upload.label, upload.truth, upload.reason) == (request_id, "red", "blue", "random")
    assert (upload.model, upload.version, upload.top[0][0], upload.told_at is not None) == ("colours", "1", "red", True)
    (stored,) = storage.stored_uploads(folder)
    assert stored.image.read_bytes() == red_png
    assert json.loads(stored.sidecar.read_text())["truth"] == "blue"


def test_a_kept_upload_can_be_judged_after_its_answer_was_forgotten(
    keeping: tuple[TestClient, Path], red_png: bytes, client_of: ClientOf
) -> None:
    client, folder = keeping
    request_id = predict(client, red_png)
    uploads(folder, 1)
    with client_of(keep=folder) as later:  # as after a restart, or at another replica
        assert tell(later, request_id, "gren").status_code == 422
        told = tell(later, request_id, "red").json()
        assert (told["right"], told["new"], told["noted"]) == (True, True, True)
        assert tell(later, request_id, "red").json()["new"] is False
        assert later.get("/feedback").json()["versions"][0]["right"] == 1
    again = tell(client, request_id, "red").json()  # the one that remembers it sees that it was judged
    assert again["new"] is False
    assert tell(client, request_id, "blue").status_code == 409


def test_identifiers_never_become_paths(keeping: tuple[TestClient, Path], red_png: bytes, tmp_path: Path) -> None:
    client, folder = keeping
    for request_id in ("../../../escaped", "/etc/escaped", ".", "..", "a/b", "x" * 128, "CON"):
        predict(client, red_png, **{"X-Request-ID": request_id})
    uploads(folder, 7)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    files = [each for each in folder.rglob("*") if each.is_file() and each.parent != folder]
    assert len(files) == 14
    assert all(len(each.stem) == 34 and each.parent.parent == folder for each in files)


def test_prepared_tensors_are_answered_and_not_kept(keeping: tuple[TestClient, Path], red_png: bytes) -> None:
    client, folder = keeping
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [0.0] * 3072}
    assert client.post("/v2/models/colours/infer", json={"inputs": [tensor]}).status_code == 200
    predict(client, red_png)
    uploads(folder, 1)
