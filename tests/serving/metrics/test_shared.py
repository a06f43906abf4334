"""Metrics of several processes, which one of them shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lensmith.serving.metrics import SHARED_FOLDER

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
