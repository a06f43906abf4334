"""bench/guards.py, smaller: few false alarms, and what is wrong is found in time."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def guards() -> ModuleType:
    path = Path(__file__).parents[2] / "bench/guards.py"
    spec = importlib.util.spec_from_file_location("guards_of_the_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def named(guards: ModuleType, name: str) -> Any:
    return next(each for each in (*guards.ALIKE, *guards.WRONG) if each.name == name)


@pytest.mark.parametrize(
    ("name", "repeats"),
    [
        ("1.0% errors, 10 classes, 50 %", 200),
        ("P99 at 200 ms, heavy tail, 50 %", 100),
        ("bad hours for both, 10 %", 100),
    ],
)
def test_at_most_one_of_a_hundred_rollouts_is_ended_for_nothing(guards: ModuleType, name: str, repeats: int) -> None:
    found = guards.simulate(named(guards, name), repeats, guards.WHOLE)
    assert found["objected"] <= 0.01, found


@pytest.mark.parametrize("base", ["0% → 5%", "1% → 6%"])
@pytest.mark.parametrize("share", [10, 50])
def test_five_points_more_errors_are_seen_within_2000_requests(guards: ModuleType, base: str, share: int) -> None:
    found = guards.simulate(named(guards, f"errors {base}, {share} %"), 200, guards.DETECTED_WITHIN)
    assert found["objected"] >= 0.99, found


@pytest.mark.parametrize(
    ("name", "guard"),
    [
        ("three times as slow, 50 %", "latency"),
        ("shuffled labels, no feedback, 10 %", "classes"),
        ("shuffled labels, classes even, 10 % labelled", "feedback"),
        ("shuffled labels in shadow mode", "agreement"),
    ],
)
def test_each_guard_finds_what_it_is_for(guards: ModuleType, name: str, guard: str) -> None:
    found = guards.simulate(named(guards, name), 20, guards.DETECTED_WITHIN)
    assert found["guards"] == {guard: 20}
