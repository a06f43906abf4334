"""Services to be broken, and what is sent to them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fixtures.faults import post
from fixtures.tokens import SECRET
from lensmith.bundle.format import Bundle
from lensmith.serving.child_process import ServiceProcess, start_service


@pytest.fixture
def serve(colour_bundle: Bundle) -> Iterator[Callable[..., ServiceProcess]]:
    """`serve(**settings)`: a service for the colours, patient by default, as other tests may take the cores."""
    with ExitStack() as stack:

        def start(**settings: Any) -> ServiceProcess:
            patient = {"deadline_ms": 20_000, "threads": 2, "batching": "off"}
            return stack.enter_context(start_service(colour_bundle.path, **{**patient, **settings}))

        yield start


@pytest.fixture(scope="session")
def picture(shared_colours: Path) -> bytes:
    """A red JPEG of about a kilobyte."""
    return (shared_colours / "red" / "001.jpg").read_bytes()


@pytest.fixture(scope="session")
def predict(picture: bytes) -> bytes:
    """A request to classify the red picture."""
    return post(picture)


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services that are started in this test ask for tokens."""
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
