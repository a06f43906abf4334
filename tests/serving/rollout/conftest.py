"""A service that follows a registry which the test plays, by its mailbox."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lensmith.bundle.format import Bundle
from lensmith.config import ServeSettings
from lensmith.rollout.mailbox import Mailbox
from lensmith.rollout.report import Report
from lensmith.rollout.state import Known, Rollout
from lensmith.serving.app import create_app
from lensmith.serving.execution.model_manager import ModelManager


@dataclass
class Followed:
    """The service, and the registry's side of its mailbox."""

    client: TestClient
    mailbox: Mailbox
    known: Known

    def say(self, **changed: Any) -> None:
        self.known = self.known.model_copy(update=changed)
        self.mailbox.tell(self.known)

    def report(self) -> Report:
        """What the service has handed in."""
        reports = self.mailbox.reports()
        return reports[0] if reports else Report("none")

    def versions(self, image: bytes, requests: int) -> list[str]:
        """Who answered so many requests."""
        answers = [self.client.post("/predict", content=image) for _ in range(requests)]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.json()["model"]["version"] for answer in answers]


@pytest.fixture
def follow(colour_bundle: Bundle, tmp_path: Path) -> Iterator[Callable[..., Followed]]:
    """`follow(**settings)`: a service for version 3 of `flowers`, which is the bundle of the colours."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Followed:
            (tmp_path / "mailbox").mkdir()
            mailbox = Mailbox(tmp_path / "mailbox")
            known = Known(name="flowers", alias="champion", version="3", path=colour_bundle.path)
            mailbox.tell(known)
            patient = {"bundle": Path("flowers@champion"), "port": 0, "deadline_ms": 20_000, "batching": "off"}
            wanted = ServeSettings.model_validate({**patient, "threads": 2, **settings})
            app = create_app(ModelManager.load(wanted, mailbox), wanted)
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            return Followed(client, Mailbox(tmp_path / "mailbox"), known)

        yield start


@pytest.fixture
def rollout() -> Callable[..., Rollout]:
    """`rollout(**fields)`: half of the requests of `flowers` for version 4."""

    def make(**fields: Any) -> Rollout:
        begun = {"id": "flowers-1", "name": "flowers", "champion": "3", "challenger": "4", "share": 50.0}
        return Rollout.model_validate({**begun, **fields})

    return make
