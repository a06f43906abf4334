"""`lensmith cache` shows what is kept, and clears it."""

import json
from pathlib import Path

import numpy as np
import pytest

import lensmith
from fixtures.command_line import Run
from lensmith.core.array_cache import ArrayCache


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path))
    store = ArrayCache(10**6)
    ones = np.ones(1000, dtype=np.float16)
    for kind in ("features", "pixels"):
        store.get_or_compute(kind, {}, "float16", [1000], lambda numbers: iter([ones for _ in numbers]), f"some {kind}")
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "step-0.json").write_text("{}")


def test_people_read_what_it_is_and_how_much(run: Run) -> None:
    shown = run("cache", "list")[1]
    assert "some features" in shown
    assert "some pixels" in shown
    assert "just now" in shown


def test_programs_read_json(run: Run) -> None:
    shown = json.loads(run("cache", "list", "--json")[1])
    assert [entry["kind"] for entry in shown["entries"]] == ["features", "pixels"]
    assert all(entry["whole"] and entry["bytes"] == 2008 for entry in shown["entries"])
    assert shown["bytes"] == 4016


@pytest.mark.parametrize(("kind", "left"), [("features", ["pixels"]), ("measured", ["features", "pixels"]), (None, [])])
def test_it_is_cleared_by_kind_or_wholly(run: Run, tmp_path: Path, kind: str | None, left: list[str]) -> None:
    cleared = json.loads(run("cache", "clear", *([kind] if kind else []), "--json")[1])
    assert cleared["removed"] == (1 if kind else 3)
    assert [entry.kind for entry in lensmith.list_cache().entries] == left
    assert (tmp_path / "measured" / "step-0.json").exists() == (kind in ("features", "pixels"))
