"""A trained network as a network of formats, and all formats made from it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lensmith.exporting.formats.base import FormatExport, TrainedNetwork
from lensmith.exporting.formats.registry import FORMATS, write_formats
from lensmith.imaging.preprocessing import preprocess
from lensmith.training.models import backbone
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run

TEMPERATURE, SMOOTHING = 1.7, 0.03


@pytest.fixture(scope="session")
def network(
    trained: Path, shared_colours: Path, write_graph_once: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> TrainedNetwork:
    run = Run.open(trained)
    model = backbone.rebuild(run.settings, 3, checkpoint.load(run.best)["model"])
    graph = write_graph_once(model, run.preprocessing.image_size, tmp_path_factory.mktemp("graph") / "model.onnx")
    files = sorted(shared_colours.rglob("*.*"))[::4]
    images = np.stack([preprocess(file.read_bytes(), run.preprocessing) for file in files])
    with torch.no_grad():
        expected = 0.97 * (model(torch.from_numpy(images)) / TEMPERATURE).softmax(1).numpy() + 0.01
    how, names = run.preprocessing, ("my colours", "trained-8")
    return TrainedNetwork(
        model, run.images.labels, how, TEMPERATURE, graph, images, expected, *names, smoothing=SMOOTHING
    )


@pytest.fixture(scope="session")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `written` lies, to be left as it is."""
    return tmp_path_factory.mktemp("exported") / "formats"


@pytest.fixture(scope="session")
def written(network: TrainedNetwork, formats: Path) -> dict[str, FormatExport]:
    return {one.format: one for one in write_formats(tuple(FORMATS), network, formats)}
