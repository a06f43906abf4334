"""The review over HTTP: decisions, pictures, suggestions, and who is refused."""

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

import lensmith.core
from curation.reviewing.conftest import Begin
from fixtures.pictures import coloured_picture
from lensmith.bundle.format import Bundle
from lensmith.curation.reviewing import suggestions
from lensmith.curation.reviewing.app import PAGE, ReviewApp
from lensmith.curation.reviewing.items import ReviewItem, ReviewSource
from lensmith.curation.reviewing.session import Session
from lensmith.curation.reviewing.suggestions import Suggester
from lensmith.imaging.decoding import read

Client = Callable[..., TestClient]


@pytest.fixture
def client(photos: Path, begin: Begin) -> Client:
    """`client()`: a client on this machine of a review of `photos`."""

    def make(session: Session | None = None, token: str | None = None, host: str = "127.0.0.1:8008",
             suggester: Suggester | None = None) -> TestClient:  # fmt: skip
        review = ReviewApp(session or begin(photos), suggester, "anna", Path("reviewed.csv"))
        return TestClient(review.application(token), base_url=f"http://{host}", follow_redirects=False)

    return make


def decision(name: str, position: int = 0, label: str = "red", **more: Any) -> dict[str, Any]:
    return {"id": f"decision-{name}", "by": "anna", "position": position, "action": "label", "label": label, **more}


def test_a_decision_is_answered_counted_and_seen_by_others(client: Client) -> None:
    page = client()
    state = page.get("/api/review").json()
    assert (state["labels"], len(state["paths"]), state["reviewer"]) == (["blue", "green", "red"], 9, "anna")
    answer = page.post("/api/decisions", json=decision("1", 4)).json()
    assert answer["decided"] == [["decision-1", "anna", "label", "red"]]
    assert page.post("/api/decisions", json=decision("1", 4)).json() == answer  # repeated
    page.post("/api/decisions", json=decision("2", 4, by="bob", label="blue"))
    changes = page.get(f"/api/changes?seen={state['seen']}").json()
    assert [each[1] for each in changes["decided"]["4"]] == ["anna", "bob"]
    assert changes["seen"] == 2
    assert page.get("/api/changes?seen=2").json()["decided"] == {}
    page.post("/api/decisions", json=decision("3", 4, action="undo", undoes="decision-1"))
    assert [each[1] for each in page.get("/api/changes?seen=2").json()["decided"]["4"]] == ["bob"]


def test_a_page_from_before_the_source_changed_mixes_nothing_up(client: Client, photos: Path, begin: Begin) -> None:
    of = client().get("/api/review").json()["of"]
    (photos / "blue/00.png").write_bytes((photos / "blue/0.png").read_bytes())  # now all positions are others
    session = begin(photos)
    page = client(session)
    assert page.get("/api/changes").json()["of"] != of
    assert page.get(f"/api/pictures/0?of={of}").json()["problem"] == "other-source"
    page.post("/api/decisions", json=decision("1", 2, path="blue/2.png"))
    assert session.journal.decisions[0].path == "blue/2.png"
    answer = page.post("/api/decisions", json=decision("2", 2, path="blue/gone.png"))
    assert (answer.status_code, answer.json()["problem"]) == (409, "no-such-picture")
    assert page.get("/api/review").json()["run"] != client(session).get("/api/review").json()["run"]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 422, "malformed"),
        (b"[]", 422, "malformed"),
        (b"[" * 9_000, 422, "malformed"),
        (b'{"id": "decision-1"}', 422, "malformed"),
        (b'{"id": "decision-1", "by": "a", "position": "0", "action": "skip"}', 422, "malformed"),
        (b'{"id": "decision-1", "by": "a", "position": true, "action": "skip"}', 422, "malformed"),
        (b'{"id": "decision-1", "by": "a", "position": 0, "action": "drop"}', 422, "malformed"),
        (b'{"id": "decision-1", "by": "\\ud800", "position": 0, "action": "skip"}', 422, "malformed"),
        (b'{"id": "1", "by": "a", "position": 0, "action": "skip"}', 422, "malformed"),
        (b'{"id": "decision-1", "by": "a", "position": 9, "action": "skip"}', 409, "no-such-picture"),
        (b'{"id": "decision-1", "by": "a", "position": 0, "action": "label", "label": "Red"}', 409, "looks-alike"),
        (b'{"id": "decision-1", "by": "a", "position": 0, "action": "label", "label": "teal"}', 409, "new-class"),
        (b" " * 10_001, 413, "too-large"),
    ],
)
def test_what_is_no_decision_is_refused_and_not_written(client: Client, body: bytes, status: int, kind: str) -> None:
    page = client()
    answer = page.post("/api/decisions", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["problem"]) == (status, kind)
    assert page.get("/api/changes").json()["seen"] == 0


def test_a_full_disk_is_reported_and_the_decision_may_be_sent_again(
    client: Client, photos: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(photos)
    page = client(session)

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(session.journal, "append", full)
        answer = page.post("/api/decisions", json=decision("1"))
        assert (answer.status_code, answer.json()["problem"]) == (507, "not-written")
    assert page.post("/api/decisions", json=decision("1")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"host": "localhost:9000"}, True),
        ({"host": "[::1]:8008"}, True),
        ({"host": "127.8.8.8"}, True),
        ({"host": "attacker.example:8008"}, False),
        ({"host": "127.0.0.1.attacker.example"}, False),
        ({"host": "localhost.attacker.example"}, False),
        ({"host": "192.168.1.2:8008"}, False),
        ({"host": "["}, False),
        ({"host": "localhost#.attacker.example"}, False),
        ({"host": "attacker.example\\@127.0.0.1"}, False),
        ({"origin": "http://["}, False),
        ({"origin": "http://127.0.0.1:8008"}, True),
        ({"origin": "http://attacker.example"}, False),
        ({"origin": "http://127.0.0.1:3000"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, False),
    ],
)
def test_other_sites_are_refused(client: Client, headers: dict[str, str], allowed: bool) -> None:
    page = client()
    assert page.get("/api/review", headers=headers).status_code == (200 if allowed else 403)
    assert page.get("/api/pictures/0", headers=headers).status_code == (200 if allowed else 403)
    assert page.post("/api/decisions", json=decision("1"), headers=headers).status_code == (200 if allowed else 403)


def test_a_link_from_elsewhere_opens_the_page_but_posts_nothing(client: Client) -> None:
    page = client()
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert page.get("/", headers=link).status_code == 200
    assert page.post("/api/decisions", json=decision("1"), headers=link).status_code == 403
    form = page.post("/api/decisions", content=b"{}", headers={"content-type": "text/plain"})
    assert form.status_code == 415


def test_with_a_token_everything_is_behind_it(client: Client) -> None:
    page = client(token="secret", host="192.168.1.2:8008")
    for path in ("/", "/api/review", "/api/pictures/0", "/page/review.js", "/?token=wrong", "/api/review?token=secret"):
        assert page.get(path).status_code == 401, path
    assert page.post("/api/decisions", json=decision("1")).status_code == 401
    opened = page.get("/?token=secret")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert page.get("/").status_code == 200
    assert page.get("/api/review").status_code == 200
    assert page.post("/api/decisions", json=decision("1"), headers={"origin": "http://evil"}).status_code == 403
    assert page.post("/api/decisions", json=decision("1")).status_code == 200


def test_every_answer_has_the_secure_headers(client: Client) -> None:
    page = client()
    for path in ("/", "/page/review.js", "/api/review", "/api/pictures/0", "/nothing"):
        headers = page.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'"), path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert page.get("/", headers={"host": "evil"}).headers["x-content-type-options"] == "nosniff"


def test_pictures_are_sent_by_number_only(client: Client) -> None:
    page = client()
    for path in ("/api/pictures/9", "/api/pictures/-1", "/api/pictures/blue%2F0.png", "/api/pictures/99999999999999999",
                 "/page/../run.py", "/page/%2e%2e/run.py", "/photos/blue/0.png"):  # fmt: skip
        assert page.get(path).status_code == 404, path


def test_any_file_is_shown_upright_and_scaled_down(photos: Path, client: Client, begin: Begin) -> None:
    turned = Image.new("RGB", (900, 300), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(photos / "turned.jpg", exif=exif)
    Image.new("I;16", (40, 20), 30_000).save(photos / "deep.tiff")
    (photos / "broken.jpg").write_bytes((photos / "turned.jpg").read_bytes()[:400])
    (photos / "script.jpg").write_bytes(b"<script>alert(1)</script>")
    names = ("turned.jpg", "turned.jpg#xywh=0,0,100,200", "deep.tiff", "broken.jpg", "script.jpg")
    items = tuple(map(ReviewItem, names))
    page = client(begin(ReviewSource(photos, photos, "list", "pictures", items, ("red",))))

    def size(position: int, px: int) -> tuple[str, tuple[int, int]]:
        answer = page.get(f"/api/pictures/{position}?px={px}")
        with Image.open(io.BytesIO(answer.content)) as shown:
            return answer.headers["content-type"], shown.size

    assert size(0, 240) == ("image/png", (80, 240))
    assert size(0, 1280) == ("image/jpeg", (300, 900))
    assert size(1, 1280) == ("image/png", (100, 200))
    assert size(2, 240) == ("image/png", (40, 20))
    for position in (3, 4):
        answer = page.get(f"/api/pictures/{position}")
        assert (answer.status_code, answer.json()["problem"]) == (422, "unreadable")


def test_suggestions_arrive_with_the_changes_and_are_there_at_the_next_start(
    client: Client, photos: Path, begin: Begin, colour_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(photos.parent / "cache"))
    session = begin(photos)
    suggester = Suggester(session.source, colour_bundle.path)
    page = client(session, suggester=suggester)
    assert page.get("/api/review").json()["answers"] == {}
    suggester.hurry(7)
    suggester.start()
    deadline = time.monotonic() + 30
    while len(suggester.done) < 9 and time.monotonic() < deadline:
        time.sleep(0.01)
    suggester.stop()
    changes = page.get("/api/changes?answered=0&looking=3").json()
    assert suggester.done[0].position == 7
    assert changes["answered"] == 9
    assert [changes["answers"][str(position)][0][0] for position in (0, 3, 6)] == ["blue", "green", "red"]
    assert page.get("/api/changes?answered=9").json()["answers"] == {}
    assert page.get("/api/review").json()["answers"]["0"][0][0] == "blue"

    coloured_picture((0, 128, 128), seed=9).save(photos / "red/0.png")  # another picture under the same name
    again = Suggester(session.source, colour_bundle.path)
    asked: list[Path] = []
    monkeypatch.setattr(suggestions, "read", lambda file: asked.append(file) or read(file))
    again.start()
    again._thread.join(30)
    assert asked == [photos / "red/0.png"]
    assert sorted(each.position for each in again.done) == list(range(9))
    assert {each.top for each in again.done if each.position != 6} <= {each.top for each in suggester.done}


def test_the_page_asks_no_other_host_and_has_no_inline_code() -> None:
    for file in (*PAGE.iterdir(), *(Path(lensmith.core.__file__).parent / "page_assets").iterdir()):
        text = file.read_text(encoding="utf-8")
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)\S+", text), file.name
        assert not re.findall(r"\son\w+=\"|\sstyle=\"|\.innerHTML|<script>", text), file.name
