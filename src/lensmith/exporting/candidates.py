"""Which engines and precisions are tried for a target, and how each comes by its graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from lensmith.bundle.format import GRAPH, EngineRecord
from lensmith.exporting.openvino_graph import Int8
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.engine import lacks

Target = Literal["cpu", "gpu", "edge", "all"]

INT8_NEEDS = ("VNNI", "AVX-VNNI", "AMX-INT8", "NEON-DOT")
"""Without any of them, sums of int8 products saturate or are slow."""
BF16_NEEDS = ("BF16", "AMX-BF16", "NEON-BF16")

GOLDEN_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}
ROUNDED_TOLERANCE = 0.1
"""Of a probability of a golden sample. Fp32 is summed in another order on another machine, and no more than that; what
int8 and bf16 round to depends on the kernels, and a step of rounding early in a network grows on its way."""

MIN_CALIBRATION = 32
"""Fewer images do not show which values a layer takes."""


class Maker(Protocol):
    """Makes a graph of another precision."""

    def write(self, path: Path) -> str:
        """Write it to `path`; returns how it was calibrated, if it was."""

    def spare(self, path: Path) -> tuple[str, ...]:
        """Write it anew with more layers left in fp32, since too much accuracy was lost.

        Returns:
            Their names; none if nothing is left to try.
        """


@dataclass(frozen=True)
class Material:
    """What graphs are made of.

    Attributes:
        graph: fp32, ONNX.
        scratch: folder for files in between.
        calibration: float32 (N, 3, S, S), training images.
        judged: loads float32 (M, 3, S, S) and int64 (M,), their classes, on which accuracy may be held.
        max_drop: accuracy that may be lost, in points of 100.
    """

    graph: Path
    scratch: Path
    calibration: Tensor
    judged: Callable[[], tuple[Tensor, npt.NDArray[np.int64]]]
    max_drop: float


@dataclass(frozen=True)
class Candidate:
    """One engine at one precision.

    Attributes:
        engine: as in `lensmith.inference.engine.ENGINES`.
        precision: fp32, bf16, fp16, int8 or int8-dynamic.
        graph: name of its file.
        maker: of that file; None: it is the fp32 graph, which is there.
        needs: instruction sets, any of which it needs.
        refused: why it is not tried; empty if it is.
    """

    engine: str
    precision: str
    graph: str = GRAPH
    maker: Maker | None = None
    needs: tuple[str, ...] = ()
    refused: str = ""

    def record(self) -> EngineRecord:
        """It with nothing measured yet."""
        return EngineRecord(
            engine=self.engine,
            precision=self.precision,
            graph=None if self.refused else self.graph,
            golden_tolerance=GOLDEN_TOLERANCE.get(self.precision, ROUNDED_TOLERANCE),
            needs=self.needs,
            why=self.refused,
        )


PLAIN = Candidate("onnxruntime", "fp32")
"""Runs everywhere, and is what others are measured against."""


def candidates(target: Target, material: Material) -> list[Candidate]:
    """All that are worth a look for `target`, `PLAIN` first; those that cannot be tried say why."""
    from lensmith.exporting.onnx_graph import (  # needs onnx, which the plain one does not
        Dynamic,
        Half,
        Static,
        operators,
    )

    graph, images = material.graph, material.calibration
    kinds = operators(graph)
    few = f"{len(images)} training images, and {MIN_CALIBRATION} are needed to calibrate"
    few = few if len(images) < MIN_CALIBRATION else ""
    no_products = "" if kinds["MatMul"] + kinds["Gemm"] > 2 else "hardly a layer here is a matrix product"
    half = Half(graph)
    found = [PLAIN]
    if target != "gpu":
        static, dynamic = (
            Static(graph, images, material.scratch / "static"),
            Dynamic(graph, material.scratch / "dynamic"),
        )
        found += [
            Candidate("onnxruntime", "int8", "int8.onnx", static, INT8_NEEDS, few),
            Candidate("onnxruntime", "int8-dynamic", "int8-dynamic.onnx", dynamic, INT8_NEEDS, no_products),
        ]
    if target in ("cpu", "all"):
        attention = kinds["Softmax"] > 0
        int8 = Int8(graph, images, material.scratch / "nncf", attention, material.judged, material.max_drop)
        found += [
            Candidate("openvino", "fp32"),
            Candidate("openvino", "bf16", needs=BF16_NEEDS),
            Candidate("openvino", "int8", "int8.xml", int8, INT8_NEEDS, few),
        ]
    if target in ("gpu", "all"):
        found += [
            Candidate("onnxruntime-cuda", "fp32"),
            Candidate("onnxruntime-cuda", "fp16", "fp16.onnx", half),
            Candidate("onnxruntime-tensorrt", "fp16", "fp16.onnx", half),
        ]
    return [replace(each, refused=each.refused or lacks(each.record())) for each in found]
