"""An int8 graph for OpenVINO, by NNCF: calibrated, and with accuracy control where that is not enough."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.engine import openvino_core
from lensmith.image import Tensor

CONTROL_IMAGES = 300
"""Accuracy control holds the accuracy on so many."""
RANKING_IMAGES = 64
"""On so many of them NNCF finds out which layers hurt; it runs them again for every layer."""


class Int8:
    """Int8 weights by channel and int8 activations.

    Args:
        graph: ONNX, fp32.
        images: float32 (N, 3, S, S) to calibrate on.
        transformer: it has attention, for which NNCF knows parts that should stay in fp32.
        judged: loads float32 (M, 3, S, S) and int64 (M,), their classes, on which accuracy control holds the accuracy.
        max_drop: accuracy that may be lost, in points of 100.
    """

    def __init__(
        self,
        graph: Path,
        images: Tensor,
        transformer: bool,
        judged: Callable[[], tuple[Tensor, npt.NDArray[np.int64]]],
        max_drop: float,
    ) -> None:
        self._graph, self._images, self._transformer = graph, images, transformer
        self._judged, self._max_drop = judged, max_drop
        self._controlled = False

    def write(self, path: Path) -> str:
        """Write OpenVINO IR: `path`, which ends in .xml, and its .bin; returns the method."""
        nncf, ov = _libraries()
        with _quiet():
            ov.save_model(nncf.quantize(*self._inputs(nncf), **self._options(nncf)), path, compress_to_fp16=False)
        return "NNCF"

    def spare(self, path: Path) -> tuple[str, ...]:
        """Write it anew with those layers put back into fp32 that cost accuracy; once.

        Returns:
            Names of the layers that were put back; none if nothing is left to try.
        """
        if self._controlled:
            return ()
        self._controlled = True
        nncf, ov = _libraries()
        images, truth = self._judged()
        samples = [(image[None], int(label)) for image, label in zip(images, truth, strict=True)]
        quantised = _in_int8(openvino_core().read_model(path))
        with _quiet():
            made = nncf.quantize_with_accuracy_control(
                *self._inputs(nncf),
                nncf.Dataset(samples, lambda sample: sample[0]),
                _accuracy,
                max_drop=self._max_drop / 100,
                advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                    ranking_subset_size=min(len(samples), RANKING_IMAGES), num_ranking_workers=1
                ),
                **self._options(nncf),
            )
            ov.save_model(made, path, compress_to_fp16=False)
        return tuple(sorted(quantised - _in_int8(made)))

    def _inputs(self, nncf: Any) -> tuple[Any, Any]:
        images = [image[None] for image in self._images]
        return openvino_core().read_model(self._graph), nncf.Dataset(images)

    def _options(self, nncf: Any) -> dict[str, Any]:
        kind = nncf.ModelType.TRANSFORMER if self._transformer else None
        return {"subset_size": len(self._images), "model_type": kind}


def _accuracy(compiled: Any, samples: Iterable[tuple[Tensor, int]]) -> tuple[float, list[float]]:
    """What NNCF is to hold, with each sample's part in it."""
    right = [float(compiled(image)[0].argmax() == label) for image, label in samples]
    return float(np.mean(right)), right


def _in_int8(model: Any) -> set[str]:
    """Names of the layers with weights whose input is quantised."""
    layers = ("Convolution", "GroupConvolution", "MatMul")
    return {
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() in layers and _quantised(node.input_value(0).get_node())
    }


def _quantised(node: Any) -> bool:
    """Whether a value comes from a FakeQuantize, moved about at most."""
    while node.get_type_name() in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "FakeQuantize")


@cache
def _libraries() -> tuple[Any, Any]:
    """NNCF and OpenVINO. NNCF reports its use to its makers unless it is told that it runs in CI."""
    openvino_core()  # first, since it must stay
    said = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        with _quiet():
            import nncf
            import openvino as ov
    finally:
        os.environ.pop("NNCF_CI") if said is None else os.environ.update(NNCF_CI=said)
    return nncf, ov


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws bars and logs what it does."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
