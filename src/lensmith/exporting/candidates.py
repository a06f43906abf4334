"""Candidates of the engine search: which engines and precisions (quantization, fp16, bf16) are tried for a target."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from lensmith.bundle.format import GRAPH, EngineRecord
from lensmith.exporting.openvino_graph import OpenVinoInt8
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.engine import lacks

Target = Literal["cpu", "gpu", "edge", "all"]

INT8_NEEDS = ("VNNI", "AVX-VNNI", "AMX-INT8", "NEON-DOT")
"""Instruction sets for int8: without any of them, sums of int8 products saturate or are slow."""
BF16_NEEDS = ("BF16", "AMX-BF16", "NEON-BF16")

GOLDEN_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}
ROUNDED_TOLERANCE = 0.1
"""Allowed difference of a golden sample's probability in int8 and bf16: what they round to depends on the kernels, and
a rounding step early in a network grows on its way. Fp32 is only summed in another order on another machine."""

MIN_CALIBRATION_IMAGES = 32
"""Fewer images do not show which values a layer takes."""


@dataclass(frozen=True)
class Candidate:
    """One engine at one precision.

    Attributes:
        engine: a name in `lensmith.inference.engine.ENGINES`.
        precision: fp32, bf16, fp16, int8 or int8-dynamic.
        graph: file name of its graph in the bundle.
        write: writes that graph, and returns the calibration method, an empty text without calibration; None for the
            fp32 graph, which every export has.
        exclude_layers: writes that graph anew with more layers excluded from quantization, since too much accuracy was
            lost, and returns the names of the layers left in fp32; none if nothing is left to try.
        needs: instruction sets, one of which it needs.
        refused: reason why this candidate is not tried; empty if it is.
    """

    engine: str
    precision: str
    graph: str = GRAPH
    write: Callable[[Path], str] | None = None
    exclude_layers: Callable[[Path], tuple[str, ...]] = lambda path: ()
    needs: tuple[str, ...] = ()
    refused: str = ""

    def record(self) -> EngineRecord:
        """An EngineRecord for this candidate, without measurements."""
        return EngineRecord(
            engine=self.engine,
            precision=self.precision,
            graph=None if self.refused else self.graph,
            golden_tolerance=GOLDEN_TOLERANCE.get(self.precision, ROUNDED_TOLERANCE),
            needs=self.needs,
            why=self.refused,
        )


BASELINE = Candidate("onnxruntime", "fp32")
"""Runs everywhere, and is what the other candidates are compared with."""


def candidates(
    target: Target,
    graph: Path,
    calibration: Tensor,
    labelled: Callable[[], tuple[Tensor, npt.NDArray[np.int64]]],
    max_drop_pp: float,
    scratch: Path,
) -> list[Candidate]:
    """All candidates for `target`, `BASELINE` first; those that cannot be tried have their reason in `refused`.

    Args:
        target: the devices that the bundle is meant for.
        graph: the fp32 ONNX graph, from which graphs of other precisions are built.
        calibration: float32 (N, 3, S, S), training images, normalised.
        labelled: loads images for accuracy control, float32 (M, 3, S, S), and their classes, int64 (M,).
        max_drop_pp: accuracy that may be lost, in percentage points.
        scratch: folder for intermediate files.
    """
    from lensmith.exporting.onnx_graph import StaticInt8, dynamic_int8, float16, operators  # the baseline needs no onnx

    kinds = operators(graph)
    few = f"{len(calibration)} training images, and {MIN_CALIBRATION_IMAGES} are needed to calibrate"
    few = few if len(calibration) < MIN_CALIBRATION_IMAGES else ""
    no_products = "" if kinds["MatMul"] + kinds["Gemm"] > 2 else "hardly a layer here is a matrix product"

    def int8(engine: str, file: str, builder: StaticInt8 | OpenVinoInt8) -> Candidate:
        return Candidate(engine, "int8", file, builder.write, builder.exclude_layers, INT8_NEEDS, few)

    found = [BASELINE]
    if target != "gpu":
        dynamic = partial(dynamic_int8, graph, scratch / "dynamic")
        found += [
            int8("onnxruntime", "int8.onnx", StaticInt8(graph, calibration, scratch / "static")),
            Candidate(
                "onnxruntime", "int8-dynamic", "int8-dynamic.onnx", dynamic, needs=INT8_NEEDS, refused=no_products
            ),
        ]
    if target in ("cpu", "all"):
        attention = kinds["Softmax"] > 0
        controlled = OpenVinoInt8(graph, calibration, scratch / "nncf", attention, labelled, max_drop_pp)
        found += [
            Candidate("openvino", "fp32"),
            Candidate("openvino", "bf16", needs=BF16_NEEDS),
            int8("openvino", "int8.xml", controlled),
        ]
    if target in ("gpu", "all"):
        half = partial(float16, graph)
        found += [
            Candidate("onnxruntime-cuda", "fp32"),
            Candidate("onnxruntime-cuda", "fp16", "fp16.onnx", half),
            Candidate("onnxruntime-tensorrt", "fp16", "fp16.onnx", half),
        ]
    return [replace(each, refused=each.refused or lacks(each.record())) for each in found]
