"""Which of a bundle's engines serves: the fastest within the accuracy limit, and the others in order, with the reasons.

Pure functions on measured records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lensmith.bundle.format import EngineRecord

DEFAULT_DROP = 0.5
"""Accuracy that an engine may lose unless the settings say otherwise, in points of 100."""

TIE = 0.03
"""Speeds that differ by a smaller share are as good as equal: a second measurement may turn them round."""


def choose(records: Sequence[EngineRecord], max_drop: float) -> tuple[EngineRecord, ...]:
    """Mark the chosen engine and the Pareto front, and give every record its reason.

    Args:
        records: as measured; those without a graph or without a speed are out.
        max_drop: accuracy that may be lost against PyTorch, in points of 100.

    Returns:
        The chosen one first, then the others that may serve, the faster first, then those that may not. None is chosen
        where none may serve.
    """
    fit = [record for record in records if may_serve(record, max_drop) and record.images_per_second is not None]
    rest = [record for record in records if record not in fit]
    on_front = front(fit)
    ranked = _ranked(fit)
    told = [_with(record, chosen=number == 0, pareto=record in on_front) for number, record in enumerate(ranked)]
    best = told[:1]
    told = [record.model_copy(update={"why": _why(record, best[0], fit, max_drop)}) for record in told]
    return (*told, *(_with(record, why=record.why or _unfit(record, max_drop)) for record in rest))


def as_dict(engines: Sequence[EngineRecord]) -> dict[str, Any]:
    """What programs read of a choice, as plain values for JSON: the chosen engine's figures, and all candidates."""
    chosen = engines[0]
    return {
        "engine": chosen.engine,
        "precision": chosen.precision,
        "accuracy": chosen.accuracy,
        "latency_ms": chosen.latency_ms,
        "images_per_second": chosen.images_per_second,
        "candidates": [{"name": record.name, **record.model_dump(mode="json")} for record in engines],
    }


def may_serve(record: EngineRecord, max_drop: float) -> bool:
    """Whether its graph is there and loses no more than allowed; speed aside."""
    return bool(record.graph) and (record.drop is None or record.drop <= max_drop + 1e-9)


def front(records: Iterable[EngineRecord]) -> tuple[EngineRecord, ...]:
    """Those that no other beats: at least as good in accuracy, throughput, latency and size, and better in one."""
    rows = [(record, _merits(record)) for record in records]
    return tuple(
        record
        for record, ours in rows
        if not any(all(b >= a for a, b in zip(ours, theirs, strict=True)) and theirs != ours for _, theirs in rows)
    )


def _merits(record: EngineRecord) -> tuple[float, float, float, float]:
    """More is better in each."""
    unknown = float("-inf")
    return (
        unknown if record.accuracy is None else record.accuracy,
        unknown if record.images_per_second is None else record.images_per_second,
        unknown if record.latency_ms is None else -record.latency_ms,
        unknown if record.bytes is None else -record.bytes,
    )


def _ranked(fit: Sequence[EngineRecord]) -> list[EngineRecord]:
    """By speed; of those as fast as the first, the one that loses least accuracy comes first."""
    by_speed = sorted(fit, key=lambda record: -_speed(record))
    if not by_speed:
        return []
    level = [record for record in by_speed if _speed(record) >= (1 - TIE) * _speed(by_speed[0])]
    first = min(level, key=lambda record: (record.drop or 0.0, record.latency_ms or 0.0))
    return [first, *(record for record in by_speed if record is not first)]


def _speed(record: EngineRecord) -> float:
    return record.images_per_second or 0.0


def _why(record: EngineRecord, best: EngineRecord, fit: Sequence[EngineRecord], max_drop: float) -> str:
    if not record.chosen:
        return f"{_speed(record) / _speed(best):.0%} of the chosen one's speed"
    if len(fit) == 1:
        return f"the only one within {max_drop:g} points"
    plain = next((other for other in fit if (other.engine, other.precision) == ("onnxruntime", "fp32")), None)
    times = f", {_speed(record) / _speed(plain):.1f}× {plain.name}" if plain and plain.name != record.name else ""
    return f"the fastest of {len(fit)} within {max_drop:g} points{times}"


def _unfit(record: EngineRecord, max_drop: float) -> str:
    if record.drop is not None and record.drop > max_drop:
        return f"loses {record.drop:.2f} points, and {max_drop:g} are allowed"
    return "could not be measured"


def _with(record: EngineRecord, **changes: object) -> EngineRecord:
    return record.model_copy(update={"chosen": False, "pareto": False, **changes})
