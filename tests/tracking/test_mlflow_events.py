"""What an event is in MLflow."""

import math

from lensmith.tracking.mlflow_events import MAX_TAG, description_tags, params, translate

EPOCH = {
    "event": "epoch", "epoch": 2, "phase": "all", "step": 6, "train_loss": 0.5, "train_accuracy": 0.75,
    "val_loss": None, "val_accuracy": None, "images": 12, "checkpointing": True, "seconds": 0.1, "best": True,
    "time": 100.25,
}  # fmt: skip


def test_an_epoch_is_its_figures_at_its_number_and_time_without_those_it_lacks() -> None:
    update = translate([EPOCH], begun=0, epoch=0)
    points = {point.name: (point.value, point.step, point.at_ms) for point in update.points}
    assert points["train_loss"] == (0.5, 2, 100_250)
    assert points["checkpointing"] == (1.0, 2, 100_250)
    assert points["best_epoch"] == (2.0, 2, 100_250)
    assert not {"val_loss", "best_val_loss", "best_val_accuracy", "phase", "step"} & set(points)
    assert update.epoch == 2


def test_an_epoch_that_is_run_again_after_a_kill_counts_once() -> None:
    assert not translate([EPOCH], begun=0, epoch=2).points
    assert len(translate([EPOCH, EPOCH], begun=0, epoch=1).points) == len(translate([EPOCH], begun=0, epoch=1).points)


def test_memory_and_chunks_stand_by_the_step() -> None:
    memory = {"event": "memory", "step": 7, "peak_bytes": 5, "chunks": 2, "checkpointing": False, "exact": True}
    oom = {"event": "oom", "step": 8, "retries": 1, "chunks": 4, "checkpointing": True, "exact": True}
    points = [(one.name, one.value, one.step) for one in translate([memory, oom], begun=0, epoch=0).points]
    assert ("memory/peak_bytes", 5.0, 7) in points
    assert ("memory/chunks", 4.0, 8) in points
    assert ("memory/retries", 1.0, 8) in points


def test_an_event_of_an_older_lensmith_has_the_time_at_which_the_run_began() -> None:
    (point, *_) = translate([{**EPOCH, "time": 0}], begun=0, epoch=0).points
    untimed = {name: value for name, value in EPOCH.items() if name != "time"}
    assert translate([untimed], begun=12.5, epoch=0).points[0].at_ms == 12_500
    assert point.at_ms == 0


def test_the_status_is_that_of_the_last_event_that_changes_it() -> None:
    events = [{"event": name, "step": 1} for name in ("start", "interrupted", "resume", "end")]
    assert [translate(events[:count], 0, 0).status for count in range(1, 5)] == [
        "RUNNING",
        "KILLED",
        "RUNNING",
        "FINISHED",
    ]
    assert translate([{"event": "failed", "reason": "memory"}], 0, 0).status == "FAILED"
    assert translate([EPOCH], 0, 0).status is None


def test_other_events_are_tags_and_those_of_phases_have_their_phase_in_the_name() -> None:
    events = [{"event": "phase", "phase": "head", "precision": "bf16"}, {"event": "phase", "phase": "all", "x": "é"}]
    tags = translate([*events, {"event": "left_out", "path": "a.png"}], 0, 0).tags
    assert tags == {"phase.head": '{"precision": "bf16"}', "phase.all": '{"x": "é"}'}


def test_what_is_too_long_for_mlflow_is_cut() -> None:
    tags = translate([{"event": "skipped", "files": ["x" * 20_000]}], 0, 0).tags
    assert len(tags["skipped"]) == MAX_TAG


def test_a_value_that_is_no_number_is_sent_as_such() -> None:
    point = translate([{**EPOCH, "train_loss": math.nan}], 0, 0).points[0]
    assert math.isnan(point.value)


def test_params_are_the_settings_without_where_they_are_tracked() -> None:
    settings = {"lr": 0.001, "weights": None, "split": [5, 3, 2], "tracking": "auto", "model": "resnet18"}
    assert params(settings) == {"lr": "0.001", "weights": "null", "split": "[5, 3, 2]", "model": "resnet18"}


def test_tags_tell_of_data_and_versions() -> None:
    data = {"root": "/d", "source": "/d", "fingerprint": "f", "parts": {"train": 3}, "notes": []}
    tags = description_tags({"data": data, "labels": ["a", "b"], "weights": "none", "versions": {"torch": "2"}})
    assert tags["dataset.fingerprint"] == "f"
    assert tags["dataset.parts"] == '{"train": 3}'
    assert tags["dataset.labels"] == '["a", "b"]'
    assert tags["version.torch"] == "2"


def test_cross_validated_figures_are_metrics_of_their_own() -> None:
    figures = {"accuracy": 0.75, "balanced_accuracy": 0.5, "f1_macro": 0.5, "log_loss": 1.5, "accuracy_spread": 0.25}
    update = translate([{"event": "cross_validated", **figures, "folds": [], "time": 7.0}], 0, 0)
    assert {point.name: point.value for point in update.points} == {
        f"cv/{name}": each for name, each in figures.items()
    }
    assert "accuracy_spread" in update.tags["cross_validated"]
