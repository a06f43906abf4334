"""A torch module → an ONNX graph: the one way from torch to an engine."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lensmith.errors import ModelError
from lensmith.inference.engine import FEATURES

INPUT, OUTPUT = "images", "logits"

WITH_WEIGHTS = ("Gemm", "MatMul", "Conv")
BEHIND = ("Add", "Flatten", "Reshape", "Squeeze")
"""What may stand between the last layer and the logits: its bias, and the ends of a convolution of one pixel."""


def write_graph(model: nn.Module, image_size: int, path: Path, features: bool = False) -> Path:
    """Export through the dynamo exporter, with a free batch dimension, weights inside the file.

    Args:
        model: in evaluation mode, on the CPU; float32 (N, 3, S, S) → float32 (N, C).
        image_size: S.
        path: the .onnx file to write.
        features: give what the last layer takes, too, as a second output: float32 (N, D).

    Returns:
        `path`.

    Raises:
        ModelError: the exporter cannot express the network, with its own words; or there is no such layer.
    """
    # Two, since the exporter takes an example of one for a fixed dimension.
    example = torch.zeros(2, 3, image_size, image_size)
    with _quiet(), _out_of_place(model), _translated(model):
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1)}},
            optimize=True,
        )
        assert program is not None
        if features:
            _show_features(program.model)
        program.save(str(path), external_data=False)
    return path


def _show_features(graph: Any) -> None:
    """Make what the last layer with weights takes an output of the graph (onnx_ir), after the logits."""
    import onnx_ir

    node = graph.graph.outputs[0].producer()
    while node is not None and node.op_type in BEHIND:
        node = node.inputs[0].producer()
    taken = node.inputs[0] if node is not None and node.op_type in WITH_WEIGHTS else None
    sizes = list(taken.shape or ()) if taken is not None else []
    if taken is None or len(sizes) < 2 or not isinstance(sizes[1], int) or any(size != 1 for size in sizes[2:]):
        raise ModelError(
            "A network that ends in one layer on pooled features was expected, to give them beside its answers.",
            f"This one ends in {node.op_type if node is not None else 'nothing that is known'}"
            f"{f', which takes {taken.shape}' if taken is not None else ''}.",
            "Leave --features out, or train another backbone.",
        )
    # A node of its own, so that what others do to the layer's input leaves the output's name alone.
    flat = len(sizes) == 2
    shown = onnx_ir.node("Identity" if flat else "Flatten", [taken], attributes=None if flat else {"axis": 1})
    shown.outputs[0].name, shown.outputs[0].dtype = FEATURES, onnx_ir.DataType.FLOAT
    shown.outputs[0].shape = onnx_ir.Shape(sizes[:2])
    graph.graph.append(shown)
    graph.graph.outputs.append(shown.outputs[0])


@contextlib.contextmanager
def _translated(model: nn.Module) -> Iterator[None]:
    """What the exporter says of a network that it cannot express, as an error for users."""
    try:
        yield
    except torch.onnx.OnnxExporterError as error:
        said = " ".join(str(error.__cause__ or error).split()).partition(". ")[0][:200]
        raise ModelError(
            "A network that torch.onnx can export was expected.",
            f"Of this {type(model).__name__} it says: {said.rstrip('.')}.",
            "Train another backbone; `lensmith models` lists them.",
        ) from error


@contextlib.contextmanager
def _out_of_place(model: nn.Module) -> Iterator[None]:
    """Activations that write into their input are taken apart by the exporter, which takes longer than all the rest."""
    modules = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    try:
        for module in modules:
            module.inplace = False  # type: ignore[assignment]
        yield
    finally:
        for module in modules:
            module.inplace = True  # type: ignore[assignment]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its own internals on every channel there is."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
