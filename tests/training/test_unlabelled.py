"""Unlabelled pictures in a training: none that the run has; those that were learnt from are recorded and hashed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fixtures.pictures import COLOURS, coloured_picture
from lensmith.config import TrainSettings
from lensmith.errors import DataError
from lensmith.exporting.image_hashes import hashes_of
from lensmith.training.linear_probe import self_training
from lensmith.training.trainer import Trainer
from lensmith.training.unlabelled import pseudo_labelled_files, unlabelled_images


@pytest.fixture
def unlabelled(tmp_path, shared_colours) -> Path:
    """Four new pictures of each colour, one of them twice, and a copy of a labelled one."""
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    for name, colour in COLOURS.items():
        for seed in range(100, 104):
            coloured_picture(colour, seed=seed).save(folder / f"{name}{seed}.png")
    shutil.copy(folder / "red100.png", folder / "red again.png")
    shutil.copy(next((shared_colours / "red").iterdir()), folder / "known.png")
    return folder


def start(quick: dict[str, Any], data: Path, out: Path, **changes: Any):
    settings = {**quick, "cache_gb": 1, "data": data, "out": out, "trainable_stages": 0, "augment": "none", **changes}
    return Trainer().start(TrainSettings.model_validate(settings)).run


@pytest.mark.usefixtures("_no_plots")
def test_a_head_learns_from_new_pictures_once_each(quick, shared_colours, unlabelled, tmp_path, monkeypatch):
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    kept = self_training.SelfTraining

    def always(*fields: Any) -> Any:
        found = kept(*fields)
        return kept(found.probe, True, *fields[2:])

    monkeypatch.setattr(self_training, "SelfTraining", always)
    run = start(quick, shared_colours, tmp_path / "run", unlabelled=unlabelled, head_solver="lbfgs")
    images = unlabelled_images(run)
    assert len(images.samples) == 12
    assert "known.png" not in {sample.path for sample in images.samples}
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    event = next(each for each in events if each["event"] == "self_training")
    files = pseudo_labelled_files(run)
    assert (event["pictures"], event["used"]) == (12, len(files))
    assert files
    assert all(file.is_file() for file in files)
    assert len(hashes_of(run).train_files) == len(run.images.part("train")) + len(files)


@pytest.mark.usefixtures("_no_plots")
def test_settings_without_a_solved_head_and_a_missing_folder_are_refused(quick, shared_colours, unlabelled, tmp_path):
    for changes in ({"trainable_stages": 1}, {"head_solver": "minibatch"}, {"feature_cache": "never"}):
        with pytest.raises(ValidationError):
            start(quick, shared_colours, tmp_path / "run", **{"unlabelled": unlabelled, **changes})
    with pytest.raises(DataError):
        start(quick, shared_colours, tmp_path / "run", unlabelled=tmp_path / "nowhere", head_solver="lbfgs")
    assert not (tmp_path / "run").exists()
