"""What all tests of authentication may use."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.config import ServeSettings
from lensmith.serving.auth import jwks, rate_limit
from lensmith.serving.auth.jwt import Authenticator


class Clock:
    """Stands in for `time` in one module, so that the event loop has the real one; the test moves it."""

    now = 6000.0  # the beginning of a minute

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of key sets and of rate limits."""
    clock = Clock()
    monkeypatch.setattr(jwks, "time", clock)
    monkeypatch.setattr(rate_limit, "time", clock)
    return clock


@pytest.fixture
def make_authenticator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Authenticator]:
    """An authenticator from the contents of the files that settings name."""
    monkeypatch.delenv("LENSMITH_JWT_SECRET", raising=False)

    def make(**contents: bytes | str | dict[str, Any]) -> Authenticator:
        named = {}
        for name, content in contents.items():
            file = tmp_path / name
            text = json.dumps(content) if isinstance(content, dict) else content
            file.write_bytes(text.encode() if isinstance(text, str) else text)
            named[name] = str(file)
        made = Authenticator.of(ServeSettings(bundle="x", **named))
        assert made is not None
        return made

    return make
