"""Quantization of an ONNX graph for ONNX Runtime: static int8 with calibration, dynamic int8 without, and fp16."""

from collections import Counter
from collections.abc import Mapping, Sequence
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

from lensmith.core.stats import first_as_good_as_the_best
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.engine import open_graph
from lensmith.training.models.onnx_export import INPUT, WITH_WEIGHTS, quiet

METHODS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile 99.99": (CalibrationMethod.Percentile, {"percentile": 99.99, "symmetric": False}),
    "entropy": (CalibrationMethod.Entropy, {}),
}
"""Calibration methods: how an activation's range follows from its values on the calibration images."""

HISTOGRAM_IMAGES = 64
"""Images for methods that use whole histograms, which take long and change little beyond so many."""
HISTOGRAM_VALUES = 1_000_000_000
"""Activation values in all histograms, which take about a minute; a network with many activations gets fewer images."""
MIN_HISTOGRAM_IMAGES = 8

FOLLOWING = ("Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Gelu", "Mul", "Add", "Reshape", "Transpose")
SENSITIVITY_IMAGES = 8
EXCLUDED_SHARES = (0.05, 0.1, 0.2, 0.4)
"""Shares of the layers with weights that are excluded from quantization, the most sensitive ones first."""


class StaticInt8:
    """Builder of a graph with int8 weights by channel and uint8 activations, as Quantize/DeQuantize pairs (QDQ).

    Args:
        graph: the fp32 graph, with a free batch dimension.
        images: float32 (N, 3, S, S), normalised, to calibrate on; the last quarter compares the methods.
        folder: a folder for intermediate files, made here.
    """

    def __init__(self, graph: Path, images: Tensor, folder: Path) -> None:
        held_out = max(1, len(images) // 4)
        self._images, self._held_out = images[:-held_out], images[-held_out:]
        self._graph, self._folder = graph, folder
        self._plain = folder / "preprocessed.onnx"
        self._method = ""
        self._shares = iter(EXCLUDED_SHARES)
        self._ranking: list[str] = []

    def write(self, path: Path) -> str:
        """Write the graph to `path` with the calibration method whose answers are nearest to fp32's, and return it.

        Of methods that so few images cannot tell apart the first is taken, which cuts off least.
        """
        self._folder.mkdir(exist_ok=True)
        with quiet():
            quant_pre_process(str(self._graph), str(self._plain))
        expected = _answers(self._plain, self._held_out)
        errors = {}
        for method in METHODS:
            self._write(self._folder / f"{method}.onnx", method)
            differences = np.abs(_answers(self._folder / f"{method}.onnx", self._held_out) - expected)
            errors[method] = differences.reshape(len(differences), -1).mean(axis=1)
        self._method = first_as_good_as_the_best(errors)
        (self._folder / f"{self._method}.onnx").replace(path)
        return self._method

    def exclude_layers(self, path: Path) -> tuple[str, ...]:
        """Write the graph anew with more layers left in fp32; return their names, none if all shares were tried."""
        share = next(self._shares, None)
        if share is None:
            return ()
        self._ranking = self._ranking or self._most_sensitive(path)
        layers = tuple(self._ranking[: max(1, round(share * len(self._ranking)))])
        self._write(path, self._method, layers)
        return layers

    def _most_sensitive(self, quantized: Path) -> list[str]:
        """Names of the layers with weights, the most sensitive to quantization first.

        Sensitivity is the ratio of signal to quantization noise of a layer's own result, as ONNX Runtime's debugging
        tools compute it.
        """
        with quiet():
            results = []
            for number, graph in enumerate((self._plain, quantized)):
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

    def _write(self, path: Path, method: str, excluded: Sequence[str] = ()) -> None:
        with quiet():
            quantize_static(
                str(self._plain),
                str(path),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,  # ONNX Runtime's fast kernels on x86 take this pair
                weight_type=QuantType.QInt8,
                calibrate_method=METHODS[method][0],
                nodes_to_exclude=list(excluded),
                calibration_cache_path=self._ranges(method),
            )

    def _ranges(self, method: str) -> Path:
        """A file with the range of every activation, calibrated once for each method."""
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


def dynamic_int8(graph: Path, folder: Path, path: Path) -> str:
    """Write a graph whose matrix products have int8 weights and quantize their inputs at run time.

    Args:
        graph: the fp32 graph.
        folder: a folder for intermediate files, made here.
        path: the graph to write.

    Returns:
        How activations get their ranges.
    """
    folder.mkdir(exist_ok=True)
    plain = folder / "preprocessed.onnx"
    with quiet():
        quant_pre_process(str(graph), str(plain))
        quantize_dynamic(str(plain), str(path), op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
    return "ranges as they come"


def float16(graph: Path, path: Path) -> str:
    """Write a graph in fp16 whose input and output stay float32; it has no calibration method to return.

    Normalisations need no exception: ONNX defines them with float32 inside (`stash_type`).

    Args:
        graph: the fp32 graph.
        path: the graph to write.
    """
    with quiet():
        model = onnx_ir.from_proto(convert_float_to_float16(onnx.load(graph), keep_io_types=True))
    TopologicalSortPass()(model)  # the converter appends its casts at the end, which ONNX forbids
    half = onnx_ir.to_proto(model)
    onnx.checker.check_model(half)
    onnx.save(half, path)
    return ""


def operators(graph: Path) -> Counter[str]:
    """Number of a graph's nodes of each operator."""
    return Counter(node.op_type for node in onnx.load(graph).graph.node)


def _histogram_images(first: Mapping[str, Sequence[Any]]) -> int:
    """Number of images to make histograms of, from the first image's histograms."""
    values = sum(int(histogram[0].sum()) for histogram in first.values())
    return min(HISTOGRAM_IMAGES, max(MIN_HISTOGRAM_IMAGES, HISTOGRAM_VALUES // values))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Calibration images, one by one."""

    def __init__(self, images: Tensor) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, Tensor] | None:
        """The graph's input for the next image, float32 (1, 3, S, S); None after the last."""
        image = next(self._left, None)
        return None if image is None else {INPUT: image[None]}


def _answers(graph: Path, images: Tensor) -> Tensor:
    engine = open_graph(str(graph), "onnxruntime", "fp32", threads=1)
    return np.concatenate([engine.run(image[None]) for image in images])
