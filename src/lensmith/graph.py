"""A torch module → an ONNX graph: the one way from torch to an engine."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from lensmith.errors import ModelError

INPUT, OUTPUT = "images", "logits"


def write_graph(model: nn.Module, image_size: int, path: Path) -> Path:
    """Export through the dynamo exporter, with a free batch dimension, weights inside the file.

    Args:
        model: in evaluation mode, on the CPU; float32 (N, 3, S, S) → float32 (N, C).
        image_size: S.
        path: the .onnx file to write.

    Returns:
        `path`.

    Raises:
        ModelError: the exporter cannot express the network; with its own words.
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
        program.save(str(path), external_data=False)
    return path


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
