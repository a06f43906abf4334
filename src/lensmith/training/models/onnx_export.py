"""ONNX export of a torch module, for all engines."""

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
"""Operators allowed between the last layer and the logits: its bias, and the ends of a convolution of one pixel."""


def write_graph(model: nn.Module, image_size: int, path: Path, features: bool = False) -> Path:
    """Export through the dynamo exporter, with a free batch dimension, and weights inside the file.

    Args:
        model: network in evaluation mode, on the CPU; float32 (N, 3, S, S) → float32 (N, C).
        image_size: pixels a side S.
        path: the .onnx file to write.
        features: whether the input of the last layer is a second output, float32 (N, D).

    Returns:
        `path`.

    Raises:
        ModelError: the exporter cannot express the network, or the network has no such layer.
    """
    # Two images, since the exporter takes a dimension of 1 as fixed.
    example = torch.zeros(2, 3, image_size, image_size)
    with quiet(), _out_of_place(model):
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1)}},
                optimize=True,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error.__cause__ or error).split()).partition(". ")[0][:200]
            raise ModelError(
                "A network that torch.onnx can export was expected.",
                f"Of this {type(model).__name__} it says: {reason.rstrip('.')}.",
                "Train another backbone; `lensmith models` lists them.",
            ) from error
        assert program is not None
        if features:
            _show_features(program.model)
        program.save(str(path), external_data=False)
    return path


def _show_features(graph: Any) -> None:
    """Add the input of the last layer with weights to the graph's outputs (onnx_ir), after the logits."""
    import onnx_ir

    node = graph.graph.outputs[0].producer()
    while node is not None and node.op_type in BEHIND:
        node = node.inputs[0].producer()
    taken = node.inputs[0] if node is not None and node.op_type in WITH_WEIGHTS else None
    sizes = list(taken.shape or ()) if taken is not None else []
    if taken is None or len(sizes) < 2 or not isinstance(sizes[1], int) or any(size != 1 for size in sizes[2:]):
        raise ModelError(
            "A network that ends in one layer on pooled features was expected, to give them beside its answers.",
            f"This one ends in {node.op_type if node is not None else 'no known operator'}"
            f"{f', which takes {taken.shape}' if taken is not None else ''}.",
            "Leave --features out, or train another backbone.",
        )
    # A separate node, so that later changes to the layer's input leave the output's name alone.
    flat = len(sizes) == 2
    shown = onnx_ir.node("Identity" if flat else "Flatten", [taken], attributes=None if flat else {"axis": 1})
    shown.outputs[0].name, shown.outputs[0].dtype = FEATURES, onnx_ir.DataType.FLOAT
    shown.outputs[0].shape = onnx_ir.Shape(sizes[:2])
    graph.graph.append(shown)
    graph.graph.outputs.append(shown.outputs[0])


@contextlib.contextmanager
def _out_of_place(model: nn.Module) -> Iterator[None]:
    """Turn off in-place activations: the exporter decomposes them, which takes longer than all the rest."""
    modules = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    try:
        for module in modules:
            module.inplace = False  # type: ignore[assignment]
        yield
    finally:
        for module in modules:
            module.inplace = True  # type: ignore[assignment]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence exporters and quantizers, which report their internals by logs, warnings and prints."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
