"""Triton format: a model repository that NVIDIA's Triton Inference Server serves unchanged."""

import re
import shutil
from pathlib import Path

from lensmith.exporting.formats.base import FormatCheck, TrainedNetwork
from lensmith.exporting.formats.pages import write_page

REPOSITORY = "models"
MAX_BATCH = 32


def model_name(name: str) -> str:
    """A bundle's name with only the characters that paths and addresses allow."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "classifier"


def write(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Write models/NAME/ with config.pbtxt, the labels, and the graph as version 1.

    Raises:
        ParityError: the graph answers differently.
    """
    name = model_name(network.name)
    model = folder / REPOSITORY / name
    graph = model / "1" / "model.onnx"
    graph.parent.mkdir(parents=True)
    shutil.copyfile(network.graph, graph)
    network.write_labels(model / "labels.txt")
    write_page(model / "config.pbtxt", "triton_config.pbtxt", network, model=name, max_batch=MAX_BATCH)
    network.write_config(folder)
    return FormatCheck(network.check_graph(graph), f"Triton knows it as {name}", {"model": name})
