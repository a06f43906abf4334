"""Other precisions of an ONNX graph, for ONNX Runtime: int8 with calibration, int8 without, fp16."""

from __future__ import annotations

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data
from onnxruntime.quantization.qdq_loss_debug import (
    collect_activations,
    compute_activation_error,
    create_activation_matching,
    modify_model_output_intermediate_tensors,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.engine import open_graph
from lensmith.training.models.onnx_export import INPUT

METHODS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile 99.99": (CalibrationMethod.Percentile, {"percentile": 99.99, "symmetric": False}),
    "entropy": (CalibrationMethod.Entropy, {}),
}
"""How the range of each activation is taken from what it was on the calibration images."""

HISTOGRAM_IMAGES = 64
"""Methods that look at whole histograms take long, and change little beyond so many images."""
HISTOGRAM_VALUES = 1_000_000_000
"""Where a network's activations are many, fewer images do: so many values take about a minute."""
LEAST_HISTOGRAM_IMAGES = 8

WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")
FOLLOWING = ("Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Gelu", "Mul", "Add", "Reshape", "Transpose")
SENSITIVITY_IMAGES = 8
SPARED_SHARES = (0.05, 0.1, 0.2, 0.4)
"""Of the layers with weights: those that suffer most are left in fp32, more of them each time."""


class Static:
    """Int8 weights by channel and uint8 activations, as Quantize and DeQuantize pairs (QDQ) in the graph.

    Args:
        graph: fp32, with a free batch dimension.
        images: float32 (N, 3, S, S) to calibrate on; the last quarter judges the methods.
        folder: for files in between; made here.
    """

    def __init__(self, graph: Path, images: Tensor, folder: Path) -> None:
        kept_back = max(1, len(images) // 4)
        self._images, self._check = images[:-kept_back], images[-kept_back:]
        self._graph, self._folder = graph, folder
        self._plain = folder / "preprocessed.onnx"
        self._method = ""
        self._shares = iter(SPARED_SHARES)
        self._ranking: list[str] = []

    def write(self, path: Path) -> str:
        """Write the graph to `path` with the method whose answers are nearest to fp32's; returns its name."""
        self._folder.mkdir(exist_ok=True)
        with _quiet():
            quant_pre_process(str(self._graph), str(self._plain))
        expected = _answers(self._plain, self._check)
        errors = {}
        for method in METHODS:
            self._write(self._folder / f"{method}.onnx", method)
            errors[method] = float(np.abs(_answers(self._folder / f"{method}.onnx", self._check) - expected).mean())
        self._method = min(errors, key=lambda method: errors[method])
        (self._folder / f"{self._method}.onnx").replace(path)
        return self._method

    def spare(self, path: Path) -> tuple[str, ...]:
        """Write it anew with more layers left in fp32; returns their names, none if enough has been tried."""
        share = next(self._shares, None)
        if share is None:
            return ()
        self._ranking = self._ranking or self._most_sensitive(path)
        layers = tuple(self._ranking[: max(1, round(share * len(self._ranking)))])
        self._write(path, self._method, layers)
        return layers

    def _most_sensitive(self, quantised: Path) -> list[str]:
        """Names of the layers with weights, those first whose result suffers most from quantisation.

        By the ratio of signal to quantisation noise of each layer's own result, as onnxruntime's debugging tools
        compute it.
        """
        with _quiet():
            results = []
            for number, graph in enumerate((self._plain, quantised)):
                shown = self._folder / f"shown-{number}.onnx"
                modify_model_output_intermediate_tensors(str(graph), str(shown))
                results.append(collect_activations(str(shown), _Reader(self._images[:SENSITIVITY_IMAGES])))
            ratio = compute_activation_error(create_activation_matching(results[1], results[0]))
        made_by = {out: node for node in onnx.load(self._plain).graph.node for out in node.output}
        found: dict[str, float] = {}
        for tensor, errors in ratio.items():
            node = made_by.get(tensor)
            while node is not None and node.op_type in FOLLOWING:  # its layer's result is seen after it
                node = made_by.get(node.input[0])
            if node is not None and node.op_type in WITH_WEIGHTS:
                found[node.name] = min(float(errors["qdq_err"]), found.get(node.name, float("inf")))
        return sorted(found, key=lambda name: found[name])

    def _write(self, path: Path, method: str, spared: Sequence[str] = ()) -> None:
        with _quiet():
            quantize_static(
                str(self._plain),
                str(path),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,  # ONNX Runtime's fast kernels on x86 take this pair
                weight_type=QuantType.QInt8,
                calibrate_method=METHODS[method][0],
                nodes_to_exclude=list(spared),
                calibration_cache_path=self._ranges(method),
            )

    def _ranges(self, method: str) -> Path:
        """The range of every activation, found once."""
        cache = self._folder / f"{method}.json"
        if not cache.exists():
            kind, options = METHODS[method]
            augmented = str(self._folder / "augmented.onnx")
            calibrator = create_calibrator(self._plain, None, augmented, kind, extra_options=options)
            enough = len(self._images)
            for number, image in enumerate(self._images, start=1):  # all their activations together would not fit
                calibrator.collect_data(_Reader(image[None]))
                if number == 1 and kind is not CalibrationMethod.MinMax:
                    enough = _histogram_images(calibrator.collector.histogram_dict)
                if number >= enough:
                    break
            save_tensors_data(calibrator.compute_data(), cache)
        return cache


class Dynamic:
    """Int8 weights of matrix products; their inputs are quantised as they come, without calibration.

    Args:
        graph: fp32.
        folder: for files in between; made here.
    """

    def __init__(self, graph: Path, folder: Path) -> None:
        self._graph, self._folder = graph, folder

    def write(self, path: Path) -> str:
        """Write the graph to `path`; returns how its ranges come about."""
        plain = self._folder / "preprocessed.onnx"
        self._folder.mkdir(exist_ok=True)
        with _quiet():
            quant_pre_process(str(self._graph), str(plain))
            quantize_dynamic(str(plain), str(path), op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
        return "ranges as they come"

    def spare(self, path: Path) -> tuple[str, ...]:
        """Nothing is spared."""
        return ()


class Half:
    """All in fp16, but for what goes in and comes out.

    Normalisations need no exception: ONNX defines them with float32 inside (`stash_type`).

    Args:
        graph: fp32.
    """

    def __init__(self, graph: Path) -> None:
        self._graph = graph

    def write(self, path: Path) -> str:
        """Write the graph to `path`."""
        with _quiet():
            model = onnx_ir.from_proto(convert_float_to_float16(onnx.load(self._graph), keep_io_types=True))
        TopologicalSortPass()(model)  # the converter appends its casts at the end, which ONNX forbids
        half = onnx_ir.to_proto(model)
        onnx.checker.check_model(half)
        onnx.save(half, path)
        return ""

    def spare(self, path: Path) -> tuple[str, ...]:
        """Nothing is spared."""
        return ()


def operators(graph: Path) -> Counter[str]:
    """How many nodes of each kind it has."""
    return Counter(node.op_type for node in onnx.load(graph).graph.node)


def _histogram_images(first: Mapping[str, Sequence[Any]]) -> int:
    """How many images to make histograms of, from those of the first one."""
    values = sum(int(histogram[0].sum()) for histogram in first.values())
    return min(HISTOGRAM_IMAGES, max(LEAST_HISTOGRAM_IMAGES, HISTOGRAM_VALUES // values))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Images one by one."""

    def __init__(self, images: Tensor) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, Tensor] | None:
        image = next(self._left, None)
        return None if image is None else {INPUT: image[None]}


def _answers(graph: Path, images: Tensor) -> Tensor:
    engine = open_graph(str(graph), "onnxruntime", "fp32", threads=1)
    return np.concatenate([engine.run(image[None]) for image in images])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser prints its progress, and warns of what is meant."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
