"""What all tests of authentication may use."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.config import ServeSettings
from lensmith.serving.auth.jwt import Authenticator


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
