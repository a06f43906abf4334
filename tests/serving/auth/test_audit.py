"""One line for each act of an administrator."""

import json
from datetime import UTC, datetime

import pytest

from lensmith.serving.auth import audit
from lensmith.serving.auth.jwt import Caller

ADMIN = Caller("robot@example.org", frozenset({"admin"}))


def last(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    record = caplog.records[-1]
    assert (record.name, record.levelname) == ("lensmith.audit", "INFO")
    entry: dict[str, object] = json.loads(record.getMessage())
    assert entry == record.audit  # type: ignore[attr-defined]
    return entry


@pytest.fixture(autouse=True)
def _listening(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lensmith.audit")


def test_a_line_says_who_did_what_from_where_when_and_what_came_of_it(caplog: pytest.LogCaptureFixture) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    audit.record("swap", ADMIN, "abc", "done", client="192.0.2.1", bundle="/models/b", seconds=1.5, forced=False)
    entry = last(caplog)
    assert before <= datetime.fromisoformat(str(entry.pop("time"))) <= datetime.now(UTC)
    assert entry == {
        "action": "swap",
        "subject": "robot@example.org",
        "request_id": "abc",
        "outcome": "done",
        "details": {"client": "192.0.2.1", "bundle": "/models/b", "seconds": 1.5, "forced": False},
    }


def test_whatever_is_passed_it_stays_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    audit.record(
        'a\n"b"', Caller("x\u2028y", frozenset()), "c\r\nd", "done", text="e\nf", number=float("nan"), long="x" * 5000
    )
    assert caplog.records[-1].getMessage().isascii()
    assert len(caplog.records[-1].getMessage().splitlines()) == 1
    details = last(caplog)["details"]
    assert isinstance(details, dict)
    assert (details["text"], details["number"], len(details["long"])) == ("e\nf", "nan", audit.MAX_TEXT)


def test_what_looks_like_a_token_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJyb2JvdCJ9.c2lnbmF0dXJlb2Zzb21la2luZA"
    audit.record("swap", ADMIN, "abc", "failed", header=f"Bearer {token}", path="/models/v1.2.3/bundle.json")
    assert token not in caplog.text
    assert last(caplog)["details"] == {"header": "Bearer [token]", "path": "/models/v1.2.3/bundle.json"}


def test_a_detail_that_cannot_be_said_fails_nothing_and_a_stranger_has_no_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError

    audit.record("swap", None, "abc", "done", what=Silent())
    entry = last(caplog)
    assert (entry["subject"], entry["details"]) == (None, {"what": "[Silent]"})
