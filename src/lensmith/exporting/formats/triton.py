"""A model repository that NVIDIA's Triton Inference Server serves as it is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from lensmith.exporting.formats.base import Outcome, Source
from lensmith.exporting.formats.pages import write_page
from lensmith.inference.engine import open_graph

REPOSITORY = "models"
MAX_BATCH = 32


def model_name(name: str) -> str:
    """A bundle's name as one that can stand in a path and an address."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "classifier"


def write(source: Source, folder: Path) -> Outcome:
    """Write models/NAME/ with config.pbtxt, the labels, and the graph as version 1.

    Raises:
        ParityError: the graph answers otherwise.
    """
    name = model_name(source.name)
    model = folder / REPOSITORY / name
    graph = model / "1" / "model.onnx"
    graph.parent.mkdir(parents=True)
    shutil.copyfile(source.graph, graph)
    source.write_labels(model / "labels.txt")
    write_page(model / "config.pbtxt", "triton_config.pbtxt", source, model=name, max_batch=MAX_BATCH)
    source.write_config(folder)
    engine = open_graph(str(graph), "onnxruntime", "fp32", threads=1, temperature=source.temperature)
    return Outcome(source.check(graph.name, engine.run), f"Triton knows it as {name}", {"model": name})
