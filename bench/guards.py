"""How often the guards of a canary release are wrong, and how soon they find faults: simulated, with the real guards.

    python bench/guards.py [--repeats 1000] [--quick] [--only WORD] [--plot FILE] [--json]

Each rollout is assessed every 20 challenger requests, as a service does every few seconds, until a guard objects. Half
of the scenarios have a challenger that is the champion's equal, or a little better: there every objection is a false
alarm. The others have a fault. Everything is drawn from one seed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.core.stats import wilson
from lensmith.rollout.guards import RolloutGuards
from lensmith.rollout.metrics import BUCKETS, ModelCounts, upper_ms
from lensmith.rollout.state import CanaryRelease

ASSESS_EVERY = 20
"""Challenger requests between two assessments."""
EVERY = 10
"""Assessments after which latencies are drawn anew: those at which a window of 200 requests can close."""
WHOLE, DETECTED_WITHIN = 5000, 2000
"""Challenger requests of a rollout without a fault, and of one with a fault that has to be found."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Model:
    """One side of a rollout.

    Attributes:
        errors: share of requests that fail.
        classes: share of each class among its answers.
        work_ms: median of its own work; whole requests wait as well.
        wait_ms: what the median request waits.
        spread: standard deviation of the logarithm of latencies: 0.5 has a P99 of 3.2 × the median.
        accuracy: share of its answers that are right.
    """

    errors: float = 0.0
    classes: tuple[float, ...] = (0.1,) * 10
    work_ms: float = 20.0
    wait_ms: float = 10.0
    spread: float = 0.5
    accuracy: float = 0.9


@dataclass(frozen=True)
class Scenario:
    """A rollout that is simulated many times.

    Attributes:
        name: in tables and plots.
        champion: one side.
        challenger: the other.
        share: percent.
        feedback: share of answers that somebody labels.
        bursts: hours in which both are slower and fail more: by what factor.
        shadow: the challenger works on copies.
        agreement: in shadow mode.
    """

    name: str
    champion: Model = Model()
    challenger: Model = Model()
    share: float = 10.0
    feedback: float = 0.1
    bursts: float = 1.0
    shadow: bool = False
    agreement: float = 1.0


def skewed(classes: int) -> tuple[float, ...]:
    """Shares that fall as 1/rank."""
    weights = 1 / np.arange(1, classes + 1)
    return tuple(weights / weights.sum())


def equal(name: str, model: Model, **more: Any) -> Scenario:
    """Nothing differs."""
    return Scenario(name, model, model, **more)


def _alike() -> Iterator[Scenario]:
    for errors, classes, share in (
        (0, 3, 10), (0.002, 10, 10), (0.01, 100, 10), (0.05, 10, 10), (0.002, 3, 50), (0.01, 10, 50), (0.05, 100, 50),
    ):  # fmt: skip
        yield equal(f"{errors:.1%} errors, {classes} classes, {share} %", Model(errors, skewed(classes)), share=share)
    slow = Model(0.002, work_ms=40, wait_ms=20)
    yield equal("P99 at 200 ms, 10 %", slow)
    yield equal("P99 at 200 ms, heavy tail, 50 %", replace(slow, work_ms=14, wait_ms=7, spread=1.0), share=50)
    yield equal("bad hours for both, 10 %", Model(0.005, work_ms=30, wait_ms=15), bursts=4)
    yield equal("all answers labelled, 60 % right, 50 %", Model(accuracy=0.6), share=50, feedback=1.0)
    yield equal("shadow mode, 10 %", Model(0.002, skewed(10)), shadow=True)
    old = Model(0.01, (0.64, 0.20, 0.16), accuracy=0.85)
    new = Model(0.002, (0.64, 0.26, 0.10), work_ms=15, accuracy=0.92)
    yield Scenario("a better challenger, 75 %", old, new, share=75)


def _wrong() -> Iterator[Scenario]:
    for errors, share in ((0, 10), (0.01, 10), (0.05, 10), (0, 50), (0.01, 50), (0.05, 50)):
        model = Model(errors)
        yield Scenario(
            f"errors {errors:.0%} → {errors + 0.05:.0%}, {share} %",
            model,
            replace(model, errors=errors + 0.05),
            share=share,
        )
    yield Scenario("three times as slow, 10 %", Model(), Model(work_ms=60, wait_ms=30))
    yield Scenario("three times as slow, 50 %", Model(), Model(work_ms=60, wait_ms=30), share=50)
    mixed = Model(classes=skewed(10))
    yield Scenario("shuffled labels, no feedback, 10 %", mixed, replace(mixed, classes=skewed(10)[::-1]), feedback=0)
    yield Scenario("shuffled labels, classes even, 10 % labelled", Model(), Model(accuracy=0.1))
    yield Scenario("right 90 % → 80 %, half labelled", Model(), Model(accuracy=0.8), feedback=0.5)
    yield Scenario("shuffled labels in shadow mode", Model(), Model(), feedback=0, shadow=True, agreement=0.1)


ALIKE, WRONG = tuple(_alike()), tuple(_wrong())


@lru_cache
def histogram(model: Model, whole: bool, factor: float) -> Array:
    """Probability of each bucket of latencies."""
    median = (model.work_ms + model.wait_ms * whole) * factor
    normal = NormalDist(math.log(median), model.spread)
    below = np.array([normal.cdf(math.log(upper_ms(bucket))) for bucket in range(BUCKETS + 1)])
    found = np.diff(below, prepend=0.0)
    found[found < 1e-7] = 0
    return found / found.sum()


class Side:
    """One model's counts in one rollout, at each assessment."""

    def __init__(
        self, random: np.random.Generator, scenario: Scenario, model: Model, requests: Array, bursts: Array
    ) -> None:
        factors = np.where(bursts, scenario.bursts, 1.0)
        failed = random.binomial(requests, np.minimum(1, model.errors * factors))
        answered = requests - failed
        labels = random.binomial(answered, scenario.feedback)
        right = random.binomial(labels, model.accuracy)
        self.failed, self.answered = failed.cumsum().tolist(), answered.cumsum().tolist()
        self.right, self.wrong = right.cumsum().tolist(), (labels - right).cumsum().tolist()
        self.classes = _counted(random, answered, np.array(model.classes))
        self.latency, self.work = (self._times(random, model, whole, answered, factors) for whole in (True, False))
        self.compared, self.agreed = [0] * len(requests), [0] * len(requests)

    def _times(
        self, random: np.random.Generator, model: Model, whole: bool, answered: Array, factors: Array
    ) -> list[Counter[int]]:
        answered, factors = answered.reshape(-1, EVERY).sum(axis=1), factors[::EVERY]
        chances = {factor: histogram(model, whole, factor) for factor in set(factors.tolist())}
        return [Counter(), *_counted(random, answered, np.array([chances[factor] for factor in factors.tolist()]))]

    def compare(self, random: np.random.Generator, agreement: float) -> None:
        """In shadow mode, every image of the challenger has the champion's answer as well."""
        answered = np.diff(self.answered, prepend=0)
        self.compared, self.agreed = self.answered, random.binomial(answered, agreement).cumsum().tolist()

    def at(self, index: int) -> ModelCounts:
        """What had been counted then."""
        return ModelCounts(
            answered=self.answered[index],
            failed=self.failed[index],
            latency=self.latency[index // EVERY],
            work=self.work[index // EVERY],
            classes=self.classes[index],
            right=self.right[index],
            wrong=self.wrong[index],
            compared=self.compared[index],
            agreed=self.agreed[index],
        )


def _counted(random: np.random.Generator, total: Array, chances: Array) -> list[Counter[int]]:
    """Draws of `total` (L,) things over kinds with `chances` (K,) or (L, K), summed up over the assessments."""
    used = np.flatnonzero(chances if chances.ndim == 1 else chances.sum(axis=0))
    drawn = random.multinomial(total, chances[..., used] / chances[..., used].sum(axis=-1, keepdims=True))
    keys = used.tolist()
    return [Counter(dict(zip(keys, row, strict=True))) for row in drawn.cumsum(axis=0).tolist()]


def simulate_rollout(scenario: Scenario, repeat: int, requests: int, auto_promote: bool = False) -> tuple[str, int]:
    """Simulate one rollout.

    Returns:
        The guard that ended it, or an empty text; after how many challenger requests.
    """
    random = np.random.default_rng((zlib.crc32(scenario.name.encode()), repeat))
    assessments, share = requests // ASSESS_EVERY, scenario.share / 100
    bursts = np.repeat(random.random(assessments // EVERY) < 0.2 * (scenario.bursts > 1), EVERY)
    others = random.negative_binomial(ASSESS_EVERY, share, assessments)
    others = others + ASSESS_EVERY if scenario.shadow else others  # the champion answers what the challenger copies
    champion = Side(random, scenario, scenario.champion, others, bursts)
    challenger = Side(random, scenario, scenario.challenger, np.full(assessments, ASSESS_EVERY), bursts)
    if scenario.shadow:
        challenger.compare(random, scenario.agreement)
    guard = RolloutGuards(
        CanaryRelease(
            id="m-1",
            name="m",
            champion="1",
            challenger="2",
            share=scenario.share,
            shadow=scenario.shadow,
            auto_promote=auto_promote,
        )
    )
    for index in range(assessments):
        assessment = guard.assess(champion.at(index), challenger.at(index))
        if assessment.action != "hold":
            return assessment.guard, (index + 1) * ASSESS_EVERY
    return "", requests


def simulate(scenario: Scenario, repeats: int, requests: int) -> dict[str, Any]:
    """Many rollouts of one kind, as plain values."""
    ended = [simulate_rollout(scenario, repeat, requests) for repeat in range(repeats)]
    after = sorted(requests for guard, requests in ended if guard)
    low, high = wilson(len(after), repeats)
    return {
        "scenario": scenario.name,
        "repeats": repeats,
        "requests": requests,
        "objected": len(after) / repeats,
        "interval": [round(low, 4), round(high, 4)],
        "guards": dict(Counter(guard for guard, _ in ended if guard)),
        "after": after,
    }


def plot(alike: list[dict[str, Any]], wrong: list[dict[str, Any]], path: Path) -> None:
    """False alarms by scenario; what is found by when."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    for row, found in enumerate(reversed(alike)):
        low, high = (100 * end for end in found["interval"])
        left.plot([low, high], [row, row], color="#4c78a8", linewidth=2)
        left.plot([100 * found["objected"]], [row], "o", color="#1f3b5c", markersize=5)
    left.axvline(1, color="#c23b22", linestyle="--", linewidth=1)
    left.set_yticks(range(len(alike)), [found["scenario"] for found in reversed(alike)], fontsize=8)
    left.set_xlim(left=-0.02)
    left.set_xlabel("false alarms, % of rollouts, with 95 % intervals (wanted: at most 1)")
    left.set_title(f"Nothing is wrong, {alike[0]['requests']:,} challenger requests", fontsize=10)
    for index, found in enumerate(wrong):
        after, repeats = found["after"], found["repeats"]
        x = [0, *after, found["requests"]]
        y = [0, *(100 * (place + 1) / repeats for place in range(len(after))), 100 * len(after) / repeats]
        line = {"color": f"C{index % 6}", "linestyle": ("-", "--")[index // 6 % 2], "linewidth": 1.4}
        right.step(x, y, where="post", label=found["scenario"], **line)
    right.axhline(99, color="#c23b22", linestyle="--", linewidth=1)
    right.set_ylim(0, 101)
    right.set_xlabel("challenger requests")
    right.set_ylabel("% of rollouts rolled back")
    right.set_title("Faulty challengers", fontsize=10)
    right.legend(fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    parser.add_argument("--quick", action="store_true", help="50 repeats")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    repeats = 50 if given.quick else given.repeats
    results: dict[str, list[dict[str, Any]]] = {"alike": [], "wrong": []}
    for kind, scenarios, requests in (("alike", ALIKE, WHOLE), ("wrong", WRONG, DETECTED_WITHIN)):
        for scenario in scenarios:
            if given.only not in scenario.name:
                continue
            found = simulate(scenario, repeats, requests)
            results[kind].append(found)
            low, high = found["interval"]
            median = found["after"][len(found["after"]) // 2] if found["after"] else "–"
            said = f"{found['objected']:7.2%} ({low:.1%} to {high:.1%}), median after {median}, {found['guards']}"
            print(f"{kind} {scenario.name:45} {said}", file=sys.stderr)
    if given.plot and all(results.values()):
        plot(results["alike"], results["wrong"], given.plot)
    if given.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
