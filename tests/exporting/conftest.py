"""A run with enough images to calibrate on, and its network; graphs are exported once, and speeds measured quickly."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from lensmith.config import TrainSettings
from lensmith.exporting import export
from lensmith.imaging.preprocessing import Tensor, preprocess
from lensmith.inference import benchmark
from lensmith.training.models import backbone
from lensmith.training.models.onnx_export import write_graph
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer

WriteGraph = Callable[..., Path]


@pytest.fixture(scope="session")
def write_graph_once(tmp_path_factory: pytest.TempPathFactory) -> WriteGraph:
    """`write_graph` that copies the graph of an equal network: torch's exporter takes seconds for the smallest one."""
    folder = tmp_path_factory.mktemp("graphs")

    def write(model: nn.Module, image_size: int, path: Path, features: bool = False) -> Path:
        digest = hashlib.sha256(f"{model} {image_size} {features}".encode())
        for value in model.state_dict().values():
            digest.update(value.contiguous().numpy().tobytes())
        graph = folder / f"{digest.hexdigest()}.onnx"
        if not graph.exists():
            write_graph(model, image_size, graph, features)
        return Path(shutil.copy(graph, path))

    return write


@pytest.fixture(scope="module", autouse=True)
def _quick_exports(write_graph_once: WriteGraph) -> Iterator[None]:
    """Exports with graphs from `write_graph_once`, whose speeds are measured for a moment and in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "write_graph", write_graph_once)
        patch.setattr(benchmark, "run_helper", lambda module, request, timeout_s: benchmark._answer(request))
        patch.setattr(benchmark, "LATENCY_S", 0.05)
        patch.setattr(benchmark, "THROUGHPUT_S", 0.05)
        yield


@pytest.fixture(scope="session")
def well_fed(many_colours: Path, quick_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with 36 training images, to be left as it is."""
    out = tmp_path_factory.mktemp("runs") / "well-fed"
    Trainer().start(TrainSettings.model_validate({**quick_settings, "data": many_colours, "out": out}))
    return out


@pytest.fixture(scope="session")
def its_graph(well_fed: Path, write_graph_once: WriteGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run's network as an fp32 graph."""
    run = Run.open(well_fed)
    model = backbone.rebuild(run.settings, 3, checkpoint.load(run.best)["model"])
    return write_graph_once(model, run.preprocessing.image_size, tmp_path_factory.mktemp("graphs") / "model.onnx")


@pytest.fixture(scope="session")
def its_images(well_fed: Path, many_colours: Path) -> Tensor:
    """float32 (72, 3, 32, 32): all pictures, prepared."""
    how = Run.open(well_fed).preprocessing
    return np.stack([preprocess(file.read_bytes(), how) for file in sorted(many_colours.rglob("*.*"))])
