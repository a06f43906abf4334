"""A run's account in a real MLflow store, each thing exactly once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fixtures.tracked_runs import files, histories, log_event, runs_of, state_of, track
from lensmith.bundle.format import MANIFEST
from lensmith.core.files import sha256
from lensmith.registry import client as store
from lensmith.registry.models import RUN_TAG, artifact_path
from lensmith.registry.push import push
from lensmith.tracking.sender import Sender
from lensmith.tracking.state import TrackingState


def send(run: Path, uri: str, over: bool = True) -> TrackingState:
    """Send a run, which is tracked from now on; its state then."""
    Sender(run, TrackingState.read(run) or track(run, uri), uri).send(over)
    return state_of(run)


def epochs(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in (run / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "epoch"]


def test_a_finished_run_arrives_whole(run: Path, runs_uri: str) -> None:
    state = send(run, runs_uri)
    assert state.is_complete(run)
    (made,) = runs_of(runs_uri, state.key)
    assert made.info.run_id == state.run_id
    assert (made.info.run_name, made.info.status) == ("one", "FINISHED")
    params = made.data.params
    assert (params["model"], params["epochs"], params["lr"]) == ("test_resnet", "8", "0.003")
    assert "tracking" not in params
    assert made.data.tags["dataset.parts"] == '{"train": 12, "val": 6, "test": 6}'
    assert made.data.tags["version.torch"]
    assert "phase.head" in made.data.tags
    values = histories(runs_uri, state.run_id)
    for name in ("train_loss", "val_loss", "val_accuracy", "images_per_second", "peak_memory_bytes", "chunks"):
        assert values[name] == [(line["epoch"], pytest.approx(line[name])) for line in epochs(run)], name
    assert values["memory/peak_bytes"]
    assert made.data.metrics["best_epoch"] == max(line["epoch"] for line in epochs(run) if line["best"])
    there = files(runs_uri, state.run_id)
    assert {"curves.png", "memory.png"} < there
    where = artifact_path(sha256(run / "bundle" / MANIFEST))
    assert {f"{where}/bundle.json", f"{where}/model.onnx", f"{where}/golden.npz"} <= there
    assert made.data.tags[f"{RUN_TAG}{sha256(run / 'bundle' / MANIFEST)[:16]}"] == where


def test_its_experiment_is_the_folder_also_where_a_manifest_says_the_parts(run: Path, runs_uri: str) -> None:
    described = json.loads((run / "run.json").read_text())
    described["data"] |= {"root": "/srv/flowers", "source": "/srv/flowers/splits.csv"}
    (run / "run.json").write_text(json.dumps(described))
    (made,) = runs_of(runs_uri, send(run, runs_uri).key)
    assert store.client(runs_uri).get_experiment(made.info.experiment_id).name == "flowers"


def test_what_was_sent_and_not_noted_is_sent_again_without_a_trace(run: Path, runs_uri: str) -> None:
    """As after a kill at any moment: before the id was written down, before the settings were, in the middle."""
    before = track(run, runs_uri)
    state = send(run, runs_uri)
    assert state.run_id is not None
    values, there = histories(runs_uri, state.run_id), files(runs_uri, state.run_id)
    for lost in (before, before.write(run, run_id=state.run_id), state.write(run, offset=0, epoch=0, status=None)):
        lost.write(run)
        again = send(run, runs_uri)
        assert again.run_id == state.run_id
        assert len(runs_of(runs_uri, state.key)) == 1
        assert histories(runs_uri, state.run_id) == values
        assert files(runs_uri, state.run_id) == there


def test_a_run_that_goes_on_is_the_same_mlflow_run_with_what_has_changed_beside_it(run: Path, runs_uri: str) -> None:
    events = (run / "events.jsonl").read_text().splitlines(keepends=True)
    half = next(number for number, line in enumerate(events) if '"epoch": 4' in line) + 1
    (run / "events.jsonl").write_text("".join(events[:half]))
    log_event(run, "interrupted", step=12, signal="SIGTERM")
    stopped = send(run, runs_uri)
    assert runs_of(runs_uri, stopped.key)[0].info.status == "KILLED"

    description = json.loads((run / "run.json").read_text())
    description["settings"]["loader_workers"] = 3
    (run / "run.json").write_text(json.dumps(description))
    log_event(run, "resume", step=12)
    assert send(run, runs_uri, over=False).status == "RUNNING"
    with (run / "events.jsonl").open("a") as file:
        file.writelines(events[half - 1 :])  # its last epoch again
    state = send(run, runs_uri)
    (made,) = runs_of(runs_uri, stopped.key)
    assert (made.info.run_id, made.info.status) == (stopped.run_id, "FINISHED")
    assert (made.data.params["loader_workers"], made.data.tags["resumed.loader_workers"]) == ("0", "3")
    assert [step for step, _ in histories(runs_uri, state.run_id)["val_loss"]] == list(range(1, 9))


def test_a_run_whose_process_was_killed_has_failed(run: Path, runs_uri: str) -> None:
    events = (run / "events.jsonl").read_text().splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(events[:6]) + '{"event": "ep')
    state = send(run, runs_uri, over=False)
    assert runs_of(runs_uri, state.key)[0].info.status == "RUNNING"
    assert not state.is_complete(run)
    state = send(run, runs_uri, over=True)
    (made,) = runs_of(runs_uri, state.key)
    assert made.info.status == "FAILED"
    assert made.data.tags["failed"] == "its process ended without a final event"
    assert state.is_complete(run)


def test_nothing_is_made_of_a_run_that_has_not_begun(run: Path, runs_uri: str) -> None:
    (run / "events.jsonl").write_text('{"event": "planned", "epochs": 3}\n')
    state = send(run, runs_uri)
    assert (state.run_id, runs_of(runs_uri, state.key)) == (None, [])
    assert state.is_complete(run)


def test_a_later_export_of_the_same_run_lies_beside_the_first(run: Path, runs_uri: str, remake: Any) -> None:
    first = artifact_path(sha256(run / "bundle" / MANIFEST))
    send(run, runs_uri)
    shutil.rmtree(run / "bundle")
    shutil.copytree(remake("other", version="2").path, run / "bundle")
    log_event(run, "exported", bundle="bundle", version="2")
    state = send(run, runs_uri)
    second = artifact_path(sha256(run / "bundle" / MANIFEST))
    assert first != second
    assert {f"{first}/bundle.json", f"{second}/bundle.json"} < files(runs_uri, state.run_id)


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_bundle_that_cannot_be_sent_is_left_out_and_holds_nothing_up(run: Path, runs_uri: str, how: str) -> None:
    if how == "gone":
        shutil.rmtree(run / "bundle")
    else:
        (run / "bundle" / "model.onnx").write_bytes(b"x")
    log_event(run, "last")
    state = send(run, runs_uri)
    assert state.is_complete(run)
    assert not [path for path in files(runs_uri, state.run_id) if path.startswith("bundle")]
    assert "last" in runs_of(runs_uri, state.key)[0].data.tags


def test_more_than_mlflow_takes_at_once_goes_in_turns(run: Path, runs_uri: str) -> None:
    for step in range(700):
        log_event(run, "memory", step=100 + step, peak_bytes=step, chunks=1, checkpointing=False, exact=True)
    values = histories(runs_uri, send(run, runs_uri).run_id or "")["memory/peak_bytes"]
    assert [step for step, _ in values if step >= 100] == list(range(100, 800))


def test_the_registry_takes_the_bundle_from_where_the_run_has_it(run: Path, runs_uri: str, remake: Any) -> None:
    shutil.rmtree(run / "bundle")
    shutil.copytree(remake("own", version="of this run").path, run / "bundle")
    state = send(run, runs_uri)
    pushed = push(store.client(runs_uri), run / "bundle", "tracked-colours")
    assert (pushed.uploaded, pushed.version.run) == (False, state.run_id)
