"""What verbs return, as plain values for JSON."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from lensmith.core.result import Result, plain


class Settings(BaseModel):
    path: Path = Path("x")


@dataclass
class Inner(Result):
    name: str
    secret: str = ""
    hidden = ("secret",)


@dataclass(frozen=True)
class Outer(Result):
    folder: Path
    at: datetime
    inner: tuple[Inner, ...]
    counts: dict[int, Any]
    settings: Settings
    computed = ("total",)

    @property
    def total(self) -> int:
        return len(self.inner)


def test_every_field_becomes_plain() -> None:
    result = Outer(
        Path("a/b"), datetime(2026, 1, 2, tzinfo=UTC), (Inner("i", "s"),),
        {1: np.array([1.5, 2.5]), 2: np.float32(0.5), 3: {"z"}}, Settings(),
    )  # fmt: skip
    expected = {
        "folder": "a/b", "at": "2026-01-02T00:00:00+00:00", "inner": [{"name": "i"}],
        "counts": {"1": [1.5, 2.5], "2": 0.5, "3": ["z"]}, "settings": {"path": "x"}, "total": 1,
    }  # fmt: skip
    assert json.loads(json.dumps(result.as_dict())) == expected


def test_what_has_no_plain_form_is_refused() -> None:
    with pytest.raises(TypeError):
        plain(object())
