"""A service whose registry sidecar is played by the test, through the channel."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lensmith.bundle.format import Bundle
from lensmith.config import ServeSettings
from lensmith.rollout.report import RolloutReport
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.rollout.state import CanaryRelease, DesiredState
from lensmith.serving.app import create_app
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.rollout import controller


@dataclass
class FollowingService:
    """A service, and the sidecar's side of its channel."""

    client: TestClient
    channel: SidecarChannel
    state: DesiredState

    def update(self, **changed: Any) -> None:
        """Write another desired state."""
        self.state = self.state.model_copy(update=changed)
        self.channel.write_desired_state(self.state)

    def report(self) -> RolloutReport:
        """The report that the service has written."""
        reports = self.channel.read_reports()
        return reports[0] if reports else RolloutReport("none")

    def versions(self, image: bytes, requests: int) -> list[str]:
        """The versions that answered so many requests."""
        answers = [self.client.post("/predict", content=image) for _ in range(requests)]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.json()["model"]["version"] for answer in answers]


@pytest.fixture
def follow(
    colour_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., FollowingService]]:
    """`follow(**settings)`: a service for version 3 of `flowers`, which is the bundle of the colours."""
    monkeypatch.setattr(controller, "POLL_S", 0.02)
    with ExitStack() as stack:

        def start(**settings: Any) -> FollowingService:
            (tmp_path / "channel").mkdir()
            channel = SidecarChannel(tmp_path / "channel")
            state = DesiredState(name="flowers", alias="champion", version="3", path=colour_bundle.path)
            channel.write_desired_state(state)
            patient = {"bundle": Path("flowers@champion"), "port": 0, "deadline_ms": 20_000, "batching": "off"}
            wanted = ServeSettings.model_validate({**patient, "threads": 2, **settings})
            app = create_app(ModelManager.load(wanted, channel), wanted)
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            return FollowingService(client, SidecarChannel(tmp_path / "channel"), state)

        yield start


@pytest.fixture
def rollout() -> Callable[..., CanaryRelease]:
    """`rollout(**fields)`: half of the requests of `flowers` for version 4."""

    def make(**fields: Any) -> CanaryRelease:
        begun = {"id": "flowers-1", "name": "flowers", "champion": "3", "challenger": "4", "share": 50.0}
        return CanaryRelease.model_validate({**begun, **fields})

    return make
