"""Metrics of several processes, which one of them shows."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, values
from prometheus_client.mmap_dict import MmapedDict

from lensmith.serving.metrics import SHARED_FOLDER, drop_foreign_folder, shared_metrics_folder, shared_values
from lensmith.serving.metrics.observers import GuardedCollector, ObserverFailures
from lensmith.serving.metrics.shared import SharedFiles, merge_counts_of_dead
from lensmith.serving.metrics.shared_values import flush_values, use_value_class, values_file

PROGRAM = """
import json, os, sys
from types import SimpleNamespace as Namespace

from lensmith.bundle.drift import Reference
from lensmith.inference.classifier import Prediction, Ranked
from lensmith.serving.execution.loaded_model import TimedPrediction
from lensmith.serving.metrics.telemetry import Telemetry

reference = Reference(part="val", images=300, classes=(100, 100, 100), confidence=(300,))


class Model:
    name, version = "colours", "1"
    classifier = Namespace(
        bundle=Namespace(manifest=Namespace(reference=reference)), engine=Namespace(name="fake", precision="fp32")
    )

    def knows(self, file_hash):
        return False


def shown(classes, ready, gone):
    model = Model()
    models = Namespace(all=(model,), active=model)
    telemetry = Telemetry(models, lambda: Namespace(running=0, waiting=0, threads=0), lambda: ready)
    for number in range(200):
        top = Ranked(number % classes, "", 1.0)
        telemetry.count_image(model, TimedPrediction(Prediction(top=(top,)), 0.0, 0.0))
    telemetry.update_gauges()
    if gone:
        models.all = ()
    lines = telemetry.exposition().decode().splitlines()
    values = dict(line.rpartition(" ")[::2] for line in lines if not line.startswith("#"))
    names = ("lensmith_ready", 'lensmith_drift_score{kind="classes",version="1"}')
    return [float(values[name]) for name in names]


for asked in json.loads(sys.argv[1]):
    if not os.fork():
        print(json.dumps(shown(*asked)), flush=True)
        os._exit(0)
    os.wait()
"""


def test_one_ready_process_is_enough_and_the_largest_drift_is_shown_but_not_of_a_model_that_is_gone(
    tmp_path: Path,
) -> None:
    # Of each process one after another: classes in its answers (3 are as in the reference), whether it is ready, and
    # whether the model is served no more.
    processes = [(1, False, True), (3, False, False), (1, True, False), (3, False, False)]
    run = [sys.executable, "-c", PROGRAM, json.dumps(processes)]
    environment = {**os.environ, SHARED_FOLDER: str(tmp_path)}
    page = subprocess.run(run, env=environment, check=True, capture_output=True, text=True).stdout
    ready, drift = zip(*map(json.loads, page.splitlines()), strict=True)
    assert ready == (0, 0, 1, 1)
    assert drift == (0, pytest.approx(0, abs=0.01), drift[2], drift[2])
    assert drift[2] > 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shared metrics, for metrics that this process makes."""
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path / "shared"))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setattr(shared_values, "_files", {})
    use_value_class()
    return tmp_path / "shared"


def counter() -> Any:
    return Counter("made", "Things.", ["kind"], registry=CollectorRegistry())


def shown(files: SharedFiles) -> dict[str, float]:
    return {
        each.name + "".join(each.labels.values()): each.value for metric in files.collect() for each in metric.samples
    }


def test_what_was_counted_is_written_at_a_flush(folder: Path) -> None:
    made = counter()
    file = folder / f"counter_{os.getpid()}.db"
    for number in range(2000):
        made.labels(str(number)).inc(number)
        if number % 100 == 99:
            flush_values()
    made.labels("7").inc(0)
    flush_values()
    found = {json.loads(key)[2]["kind"]: value for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file))}
    assert found == {str(number): number for number in range(2000)}


def test_without_room_counts_stay_in_memory_and_are_whole_once_there_is_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lensmith")
    files, made = SharedFiles(folder), counter()
    made.labels("a").inc()
    with monkeypatch.context() as full:

        def no_room(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(shared_values.os, "pwrite", no_room)
        for number in range(2000):
            made.labels(f"b{number}").inc()
        made.labels("a").inc()
        flush_values()
        files.store()
        files.store()
        assert shown(files)["lensmith_metrics_complete"] == 0
    files.store()
    found = shown(files)
    assert (found["made_totala"], found["made_totalb1999"], found["lensmith_metrics_complete"]) == (2, 1, 1)
    assert [record.levelname for record in caplog.records if "metrics" in record.message] == ["ERROR", "INFO"]


@pytest.mark.parametrize("harm", ["folder removed", "file removed", "file replaced", "file cut", "file changed"])
def test_files_that_others_remove_are_put_back_with_their_counts(folder: Path, harm: str) -> None:
    files, made = SharedFiles(folder), counter()
    made.labels("a").inc()
    file = folder / f"counter_{os.getpid()}.db"
    if harm == "folder removed":
        shutil.rmtree(folder)
    elif harm == "file changed":
        file.write_bytes(b"x" * file.stat().st_size)
    elif harm == "file cut":
        os.truncate(file, 3)  # would end a process that has mapped it
    else:
        file.unlink()
        if harm == "file replaced":
            file.write_bytes(b"x")
    made.labels("a").inc()
    made.labels("b").inc()
    flush_values()
    files.store()
    made.labels("b").inc()
    flush_values()
    found = shown(files)
    assert (found["made_totala"], found["made_totalb"]) == (2, 2)


def test_a_file_that_cannot_be_read_is_left_out_and_reported_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, made = SharedFiles(folder), counter()
    made.labels("a").inc()
    flush_values()
    for name, content in {
        "counter_1": b"",
        "counter_2": b"\x40\x01\0\0junk" * 9,
        "gauge_livemax_3": b"\xff" * 999,
    }.items():
        (folder / f"{name}.db").write_bytes(content)
    for _ in range(2):
        assert shown(files) == {"made_totala": 1, "lensmith_metrics_complete": 0}
    assert len(caplog.records) == 3


def test_counts_of_the_dead_survive_them_and_the_removal_of_their_file(folder: Path) -> None:
    files = SharedFiles(folder)
    values_file("counter", "77").add('["made", "made_total", {"kind": "a"}, "Things."]', 5)
    flush_values()
    (folder / "gauge_livesum_77.db").write_bytes(b"")
    merge_counts_of_dead(77)
    merge_counts_of_dead(78)  # one that has left nothing
    shared_values._files.pop(folder / "counter_77.db")  # that process is gone
    assert [each.name for each in folder.glob("*.db")] == ["counter_dead.db"]
    shutil.rmtree(folder)
    files.store()
    assert shown(files)["made_totala"] == 5


def test_a_folder_that_the_environment_names_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue())  # as prometheus_client does when imported
    drop_foreign_folder()
    assert str(tmp_path) in caplog.text
    use_value_class()
    counter().labels("a").inc()
    assert list(tmp_path.iterdir()) == []
    with shared_metrics_folder():
        assert Path(os.environ[SHARED_FOLDER]).is_dir()
    assert SHARED_FOLDER not in os.environ


def test_an_observer_that_fails_is_logged_once_and_counted_and_leaves_out_only_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = CollectorRegistry()
    failures = ObserverFailures(registry)

    def broken() -> Iterator[Any]:
        raise RuntimeError("the driver is gone")
        yield

    for _ in range(3):
        assert list(GuardedCollector("usage", broken, failures).collect()) == []
        with failures.guard("usage"):
            raise RuntimeError("again")
    assert registry.get_sample_value("lensmith_observer_failures_total", {"observer": "usage"}) == 6
    assert len(caplog.records) == 1
