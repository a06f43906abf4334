"""Int8 quantization for OpenVINO, by NNCF: with calibration, and with accuracy control where that is not enough.

NNCF runs in a helper process. It opens OpenVINO's plugin and closes it again, which takes away the stack on which this
process handles signals (see `openvino_core`), and it prints its progress.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.core.helper_process import answer_request, run_helper
from lensmith.imaging.preprocessing import Tensor

CONTROL_IMAGES = 300
"""Images on which accuracy control measures the accuracy."""
RANKING_IMAGES = 64
"""Images on which NNCF ranks layers by what they cost; it runs all of them again for every layer."""
CONTROL_LIMIT_S = 120.0
"""Accuracy control compiles the network for every layer, too, which takes a large one a quarter of an hour."""


@dataclass
class OpenVinoInt8:
    """Builder of an OpenVINO graph with int8 weights by channel and int8 activations.

    Attributes:
        graph: the fp32 ONNX graph.
        images: float32 (N, 3, S, S), normalised, to calibrate on.
        folder: a folder for intermediate files, made here.
        transformer: whether the graph has attention, parts of which NNCF then leaves in fp32.
        labelled: loads images for accuracy control, float32 (M, 3, S, S), and their classes, int64 (M,).
        max_drop_pp: accuracy that may be lost, in percentage points.
        controlled: whether accuracy control has been tried.
    """

    graph: Path
    images: Tensor
    folder: Path
    transformer: bool
    labelled: Callable[[], tuple[Tensor, npt.NDArray[np.int64]]]
    max_drop_pp: float
    controlled: bool = False

    def write(self, path: Path) -> str:
        """Write OpenVINO IR: `path`, which ends in .xml, and its .bin; returns the calibration method."""
        self.folder.mkdir(exist_ok=True)
        np.save(self.folder / "calibration.npy", self.images)
        self._quantize(path)
        return "NNCF"

    def exclude_layers(self, path: Path) -> tuple[str, ...]:
        """Write the graph anew with the layers that cost accuracy put back into fp32; once.

        Returns:
            Names of the layers that were put back; none if nothing is left to try.
        """
        if self.controlled:
            return ()
        self.controlled = True
        images, truth = self.labelled()
        np.save(self.folder / "images.npy", images)
        np.save(self.folder / "truth.npy", truth)
        return tuple(self._quantize(path, self.max_drop_pp))

    def _quantize(self, path: Path, max_drop_pp: float | None = None) -> list[str]:
        """Quantize in a helper process, and rename its files: weights of older ones may be mapped into memory.

        Raises:
            HelperError: NNCF failed, or did not find the layers that cost accuracy in time.
        """
        paths = {"graph": str(self.graph), "folder": str(self.folder)}
        excluded: list[str] = run_helper(
            "lensmith.exporting.openvino_graph",
            {**paths, "transformer": self.transformer, "max_drop_pp": max_drop_pp},
            timeout_s=None if max_drop_pp is None else CONTROL_LIMIT_S,
        )
        for suffix in (".bin", ".xml"):
            (self.folder / "int8").with_suffix(suffix).replace(path.with_suffix(suffix))
        return excluded


def _answer(request: dict[str, Any]) -> list[str]:
    """The helper process's work: writes int8.xml and int8.bin; names of the layers that are left in fp32."""
    import nncf
    import openvino as ov

    folder = Path(request["folder"])
    images = np.load(folder / "calibration.npy")

    def inputs() -> tuple[Any, Any]:
        return ov.Core().read_model(request["graph"]), nncf.Dataset([image[None] for image in images])

    kind = nncf.ModelType.TRANSFORMER if request["transformer"] else None
    options = {"subset_size": len(images), "model_type": kind}
    model = nncf.quantize(*inputs(), **options)
    excluded: list[str] = []
    if request["max_drop_pp"] is not None:
        quantized = _in_int8(model)
        pairs = zip(np.load(folder / "images.npy"), np.load(folder / "truth.npy"), strict=True)
        samples = [(image[None], int(label)) for image, label in pairs]
        model = nncf.quantize_with_accuracy_control(
            *inputs(),
            nncf.Dataset(samples, lambda sample: sample[0]),
            _accuracy,
            max_drop=request["max_drop_pp"] / 100,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=min(len(samples), RANKING_IMAGES), num_ranking_workers=1
            ),
            **options,
        )
        excluded = sorted(quantized - _in_int8(model))
    ov.save_model(model, folder / "int8.xml", compress_to_fp16=False)
    return excluded


def _accuracy(compiled: Any, samples: Iterable[tuple[Tensor, int]]) -> tuple[float, list[float]]:
    """The accuracy that NNCF may not lose, and each sample's part in it; images float32 (1, 3, S, S)."""
    correct = [float(compiled(image)[0].argmax() == label) for image, label in samples]
    return float(np.mean(correct)), correct


def _in_int8(model: Any) -> set[str]:
    """Names of the layers with weights whose input is quantized."""
    layers = ("Convolution", "GroupConvolution", "MatMul")
    return {
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() in layers and _is_quantized(node.input_value(0).get_node())
    }


def _is_quantized(node: Any) -> bool:
    """Whether a value comes from a FakeQuantize, reshaped or moved at most."""
    while node.get_type_name() in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "FakeQuantize")


if __name__ == "__main__":
    answer_request(_answer)
