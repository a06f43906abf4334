"""Engine selection: the fastest engine within the accuracy limit serves; the others are ranked, with their reasons.

Pure functions on measured records.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from lensmith.bundle.format import EngineRecord

DEFAULT_MAX_DROP_PP = 0.5
"""Accuracy that an engine may lose unless the settings say otherwise, in percentage points."""

TIE = 0.03
"""Speeds that differ by a smaller share count as equal: a second measurement may reverse their order."""


def select(records: Sequence[EngineRecord], max_drop_pp: float, images: int | None = None) -> tuple[EngineRecord, ...]:
    """Select an engine: mark it and the Pareto front, and give every record its reason.

    Args:
        records: measured engines; those without a graph or without a speed cannot be selected.
        max_drop_pp: accuracy that may be lost against the run's figure, in percentage points.
        images: number of images that losses were measured on; None: not known.

    Returns:
        The selected engine first, then the others that may serve, the faster first, then those that may not. None is
        selected where none may serve.
    """
    fit = [record for record in records if may_serve(record, max_drop_pp) and record.images_per_second is not None]
    rest = [record for record in records if record not in fit]
    on_front = pareto_front(fit)
    ranked = _ranked(fit)
    selected = [
        _marked(
            record, chosen=record is ranked[0], pareto=record in on_front,
            why=_why(record, ranked, max_drop_pp) + _doubt(record, max_drop_pp, images),
        )
        for record in ranked
    ]  # fmt: skip
    return (*selected, *(_marked(record, why=record.why or _unfit(record, max_drop_pp)) for record in rest))


def summary(engines: Sequence[EngineRecord]) -> dict[str, Any]:
    """Plain values for JSON: the selected engine's figures, and all candidates."""
    figures = ("engine", "precision", "accuracy", "latency_ms", "images_per_second")
    candidates = [{"name": record.name, **record.model_dump(mode="json")} for record in engines]
    return {**{name: getattr(engines[0], name) for name in figures}, "candidates": candidates}


def may_serve(record: EngineRecord, max_drop_pp: float) -> bool:
    """Whether an engine has a graph and loses no more accuracy than allowed, in percentage points."""
    return bool(record.graph) and (record.drop is None or record.drop <= max_drop_pp + 1e-9)


def pareto_front(records: Iterable[EngineRecord]) -> tuple[EngineRecord, ...]:
    """Engines that no other is as good as in accuracy, throughput, latency and size, and better in one."""
    rows = [(record, _merits(record)) for record in records]
    return tuple(
        record
        for record, ours in rows
        if not any(all(b >= a for a, b in zip(ours, theirs, strict=True)) and theirs != ours for _, theirs in rows)
    )


def _merits(record: EngineRecord) -> tuple[float, float, float, float]:
    """Accuracy, throughput, negative latency and negative size: more is better in each."""
    unknown = float("-inf")
    return (
        unknown if record.accuracy is None else record.accuracy,
        unknown if record.images_per_second is None else record.images_per_second,
        unknown if record.latency_ms is None else -record.latency_ms,
        unknown if record.bytes is None else -record.bytes,
    )


def smallest_visible_drop_pp(images: int) -> float:
    """The loss of accuracy, in percentage points, below which so many images may well show none.

    Of 20 samples with that loss one has no wrong answer among its images: 3 / N, the rule of three.
    """
    return float(100 * (1 - 0.05 ** (1 / images)))


def _doubt(record: EngineRecord, max_drop_pp: float, images: int | None) -> str:
    """Describe what too few images leave open about an engine that rounds; fp32 is compared by probabilities alone."""
    if not images or record.precision == "fp32" or (visible := smallest_visible_drop_pp(images)) <= max_drop_pp:
        return ""
    return f"; {images:,} images may not show a loss of less than {visible:.2g} percentage points"


def _ranked(fit: Sequence[EngineRecord]) -> list[EngineRecord]:
    """Rank by speed; of those as fast as the first, one that loses least accuracy comes first, fp32 before others."""
    by_speed = sorted(fit, key=lambda record: -_speed(record))
    if not by_speed:
        return []
    level = [record for record in by_speed if _speed(record) >= (1 - TIE) * _speed(by_speed[0])]
    first = min(level, key=lambda record: (record.drop or 0.0, record.precision != "fp32", record.latency_ms or 0.0))
    return [first, *(record for record in by_speed if record is not first)]


def _speed(record: EngineRecord) -> float:
    return record.images_per_second or 0.0


def _why(record: EngineRecord, ranked: Sequence[EngineRecord], max_drop_pp: float) -> str:
    if record is not ranked[0]:
        return f"{_speed(record) / _speed(ranked[0]):.0%} of the selected engine's speed"
    if len(ranked) == 1:
        return f"the only one within {max_drop_pp:g} percentage points"
    baseline = next((other for other in ranked if (other.engine, other.precision) == ("onnxruntime", "fp32")), record)
    times = f", {_speed(record) / _speed(baseline):.1f}× {baseline.name}" if baseline is not record else ""
    return f"the fastest of {len(ranked)} within {max_drop_pp:g} percentage points{times}"


def _unfit(record: EngineRecord, max_drop_pp: float) -> str:
    if record.drop is not None and record.drop > max_drop_pp:
        return f"loses {record.drop:.2f} percentage points, and {max_drop_pp:g} are allowed"
    return "could not be measured"


def _marked(record: EngineRecord, **changes: object) -> EngineRecord:
    return record.model_copy(update={"chosen": False, "pareto": False, **changes})
