"""`lensmith train --cv` from the command line: interrupted, resumed, refitted on all images, and what its files say."""

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_colours
from fixtures.command_line import Run
from lensmith.bundle.format import Bundle
from lensmith.data.folds import with_validation_fold
from lensmith.data.split import prepare
from lensmith.errors import SettingsError
from lensmith.training import cross_validation
from lensmith.workflows.train_and_export import settings_for

FLAGS = [
    "--cv", 2, "--model", "test_resnet", "--no-pretrained", "--image-size", 32, "--epochs", 2, "--head-epochs", 1,
    "--batch-size", 8, "--lr", 0.01, "--loader-workers", 0, "--group", r"pattern:(\d+)",
]  # fmt: skip


def stopping_in(fold: int) -> Any:
    """Replaces the training of a fold: before this one SIGTERM arrives, and a library loses it."""
    real = cross_validation._train_fold

    def train(run: Any, number: int) -> None:
        if number == fold:
            with suppress(SystemExit):
                signal.raise_signal(signal.SIGTERM)
            raise ImportError("as a library may make of it")
        real(run, number)

    return train


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_a_cross_validation_is_resumed_and_tells_whose_its_figures_are(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = make_colours(tmp_path / "colours"), tmp_path / "run"
    command = ["train", data, *FLAGS, "--out", out, "--resume", "auto"]
    with monkeypatch.context() as patched:
        patched.setattr(cross_validation, "_train_fold", stopping_in(1))
        code, _, shown = run(*command)
        assert (code, f"lensmith train --resume {out}" in shown) == (75, True)
    first = out / "folds" / "0"
    assert not (first / "checkpoints").exists()
    finished = (first / cross_validation.PREDICTIONS).stat().st_mtime_ns

    code, printed, shown = run(*command, "--json")
    assert code == 0
    assert "fold 1 (of folds 0 to 1)" in shown
    assert "fold 0" not in shown
    assert (first / cross_validation.PREDICTIONS).stat().st_mtime_ns == finished
    found = json.loads(printed)["cross_validation"]
    assert (found["images"], found["groups"]) == (24, 8)
    assert "accuracy" not in json.loads(printed)["metrics"]
    # What fold 1 trains on validated fold 0, exactly, and the other way round: no feature is computed twice.
    events = [json.loads(line) for line in (out / "folds" / "1" / "events.jsonl").read_text().splitlines()]
    assert [event["computed"] for event in events if event["event"] == "features"] == [False]

    # The pooled figure, computed anew from the files: each image once, by the model that did not see it or its group.
    images = prepare(data, (5, 3, 2), 0, group=r"pattern:(\d+)", cv=2)
    hits = 0
    for fold in range(2):
        samples = with_validation_fold(images, fold).part("val")
        with np.load(out / "folds" / str(fold) / cross_validation.PREDICTIONS) as stored:
            truth = [samples[row].label for row in stored["rows"]]
            hits += int((stored["logits"].argmax(1) == truth).sum())
    assert found["accuracy"] == pytest.approx(hits / 24)
    manifest = Bundle.load(out / "bundle").manifest
    assert manifest.cross_validation["accuracy"] == found["accuracy"]
    assert manifest.metrics["part"] == "out-of-fold"
    assert manifest.metrics["accuracy_interval"] == found["accuracy_interval"]
    assert (manifest.image_hashes.train, manifest.image_hashes.val) == (24, 0) if manifest.image_hashes else False
    card = (out / "bundle" / "README.md").read_text()
    assert "learnt from all of the images" in card
    assert "8 groups that no fold parts" in card

    code, printed, _ = run("train", "--resume", out)
    assert code == 0
    assert "there is nothing to do" in printed
    assert "cross-validated accuracy" in printed
    code, _, shown = run("evaluate", out / "bundle", data, "--part", "all", "--out", tmp_path / "report")
    assert code == 2
    assert "Of 24 images, it learnt from 24" in shown
    code, _, shown = run("train", "--resume", first)
    assert code == 2
    assert "one fold of the cross-validation" in shown
    code, _, shown = run("train", data, *FLAGS, "--cv", 3, "--resume", out)
    assert code == 2
    assert "cv: 2 in the run, 3 now" in shown


@pytest.mark.parametrize(
    "given",
    [{"time_budget": "5m"}, {"teacher": "runs/teacher"}, {"schedule": "plateau"}, {"split": "8:1:1"}],
    ids=lambda given: next(iter(given)),
)
def test_what_does_not_go_with_folds_is_refused_before_anything_is_read(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="cv "):
        settings_for({"data": "nowhere", "cv": 5, **given}, None)
