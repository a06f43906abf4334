"""Translation of a run's events for MLflow: metrics with step and time, tags, and the run's status."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_TAG, MAX_PARAM = 5000, 6000
"""Longest values of a tag and a param, in characters; MLflow's own limits are 8,000 and 6,000."""

OF_EPOCH = (
    "train_loss", "train_accuracy", "val_loss", "val_accuracy", "images", "images_per_second", "data_wait_share",
    "oom_retries", "skipped_steps", "chunks", "checkpointing", "peak_memory_bytes", "seconds",
)  # fmt: skip
OF_STEP = ("peak_bytes", "chunks", "checkpointing", "retries")
OF_FOLDS = ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "accuracy_spread")
STATUS = {"start": "RUNNING", "resume": "RUNNING", "interrupted": "KILLED", "failed": "FAILED", "end": "FINISHED"}
COUNTED = ("left_out",)
"""Events of which there may be thousands; they are not sent."""


class MetricPoint(NamedTuple):
    """A value of a metric.

    Attributes:
        name: name of the metric.
        value: the value, finite or not.
        at_ms: Unix time in milliseconds; MLflow ignores a point whose name, value, time and step it has already.
        step: epoch, from 1 on; the optimizer step for metrics under `memory/`.
    """

    name: str
    value: float
    at_ms: int
    step: int


@dataclass
class RunUpdate:
    """What some events change in the MLflow run.

    Attributes:
        epoch: last epoch, from 1 on.
        points: metric points in the events' order.
        tags: name → last value.
        status: the MLflow run's new status; None where no event changes it.
        status_at_ms: Unix time of that change, in milliseconds.
        resumed: True after a resumption, perhaps with other settings.
        ends: True after an end or interruption, when plots are worth sending.
        bundle: folder of the bundle that was exported last; None without an export.
        bundle_at_ms: Unix time of that export, in milliseconds.
    """

    epoch: int
    points: list[MetricPoint] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    status_at_ms: int = 0
    resumed: bool = False
    ends: bool = False
    bundle: str | None = None
    bundle_at_ms: int = 0


def translate(events: list[dict[str, Any]], begun: float, epoch: int) -> RunUpdate:
    """Translate events for MLflow, without epochs that were sent before.

    Args:
        events: events in their order.
        begun: Unix time in seconds for events without a time.
        epoch: last epoch that was sent before.
    """
    update = RunUpdate(epoch)
    for event in events:
        name, at_ms = event["event"], round(1000 * float(event.get("time", begun)))
        if name == "epoch":
            if event["epoch"] > update.epoch:
                update.epoch = event["epoch"]
                update.points += _of_epoch(event, at_ms)
        elif name in ("memory", "oom"):
            given = {f"memory/{key}": event[key] for key in OF_STEP if key in event}
            update.points += [MetricPoint(key, float(value), at_ms, event["step"]) for key, value in given.items()]
        elif name == "exported":
            update.bundle, update.bundle_at_ms = event["bundle"], at_ms
        elif name not in COUNTED:
            # One tag for all fields, named by the event and, if it has one, the phase, as in `phase.head`.
            key = f"{name}.{event['phase']}" if "phase" in event else name
            update.tags[key] = text({each: event[each] for each in event if each not in ("event", "time", "phase")})
        if name == "cross_validated":
            update.points += [MetricPoint(f"cv/{key}", float(event[key]), at_ms, 0) for key in OF_FOLDS]
        if name in STATUS:
            update.status, update.status_at_ms = STATUS[name], at_ms
            update.resumed |= name == "resume"
            update.ends |= STATUS[name] != "RUNNING"
    return update


def _of_epoch(line: Mapping[str, Any], at_ms: int) -> list[MetricPoint]:
    step = line["epoch"]
    points = [MetricPoint(name, float(line[name]), at_ms, step) for name in OF_EPOCH if line.get(name) is not None]
    if line.get("best"):
        best = {"best_epoch": step, "best_val_loss": line["val_loss"], "best_val_accuracy": line["val_accuracy"]}
        points += [MetricPoint(name, float(value), at_ms, step) for name, value in best.items() if value is not None]
    return points


def text(value: Any, most: int = MAX_TAG) -> str:
    """A plain value as text, truncated to `most` characters."""
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return written if len(written) <= most else f"{written[: most - 1]}…"


def params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as MLflow params, without the tracking URI."""
    return {name: text(value, MAX_PARAM) for name, value in settings.items() if name != "tracking"}


def description_tags(described: Mapping[str, Any]) -> dict[str, str]:
    """Tags for the data set, the initial weights and the libraries' versions."""
    data = described["data"]
    tags = {f"dataset.{name}": data[name] for name in ("fingerprint", "source", "parts", "notes")}
    tags |= {"dataset.labels": described["labels"], "initial_weights": described["weights"]}
    tags |= {f"version.{name}": version for name, version in described["versions"].items()}
    return {name: text(value) for name, value in tags.items()}
