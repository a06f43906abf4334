"""A run with enough images to calibrate on, and its network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lensmith.config import TrainSettings
from lensmith.imaging.preprocessing import Tensor, preprocess
from lensmith.training.models import backbone
from lensmith.training.models.onnx_export import write_graph
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer


@pytest.fixture(scope="session")
def well_fed(many_colours: Path, quick_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with 36 training images, to be left as it is."""
    out = tmp_path_factory.mktemp("runs") / "well-fed"
    Trainer().start(TrainSettings.model_validate({**quick_settings, "data": many_colours, "out": out}))
    return out


@pytest.fixture(scope="session")
def its_graph(well_fed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run's network as an fp32 graph."""
    run = Run.open(well_fed)
    model = backbone.rebuild(run.settings, 3, checkpoint.load(run.best)["model"])
    return write_graph(model, run.preprocessing.image_size, tmp_path_factory.mktemp("graphs") / "model.onnx")


@pytest.fixture(scope="session")
def its_images(well_fed: Path, many_colours: Path) -> Tensor:
    """float32 (72, 3, 32, 32): all pictures, prepared."""
    how = Run.open(well_fed).preprocessing
    return np.stack([preprocess(file.read_bytes(), how) for file in sorted(many_colours.rglob("*.*"))])
