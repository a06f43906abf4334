"""An int8 graph for OpenVINO, by NNCF: calibrated, and with accuracy control where that is not enough.

NNCF works in a process of its own. It opens OpenVINO's plugin and closes it again, which takes away the stack on which
this process handles signals (see `openvino_core`); it prints what it does; and it reports its use to
its makers unless it is told that it runs in CI.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.imaging.preprocessing import Tensor

CONTROL_IMAGES = 300
"""Accuracy control holds the accuracy on so many."""
RANKING_IMAGES = 64
"""On so many of them NNCF finds out which layers hurt; it runs them again for every layer."""
CONTROL_LIMIT_S = 120.0
"""It compiles the network for every layer, too, which takes a large one a quarter of an hour."""


class Int8:
    """Int8 weights by channel and int8 activations.

    Args:
        graph: ONNX, fp32.
        images: float32 (N, 3, S, S) to calibrate on.
        folder: for files in between; made here.
        transformer: it has attention, for which NNCF knows parts that should stay in fp32.
        judged: loads float32 (M, 3, S, S) and int64 (M,), their classes, on which accuracy control holds the accuracy.
        max_drop: accuracy that may be lost, in points of 100.
    """

    def __init__(
        self,
        graph: Path,
        images: Tensor,
        folder: Path,
        transformer: bool,
        judged: Callable[[], tuple[Tensor, npt.NDArray[np.int64]]],
        max_drop: float,
    ) -> None:
        self._graph, self._images, self._folder, self._transformer = graph, images, folder, transformer
        self._judged, self._max_drop = judged, max_drop
        self._controlled = False

    def write(self, path: Path) -> str:
        """Write OpenVINO IR: `path`, which ends in .xml, and its .bin; returns the method."""
        self._folder.mkdir(exist_ok=True)
        np.save(self._folder / "calibration.npy", self._images)
        self._quantise(path)
        return "NNCF"

    def spare(self, path: Path) -> tuple[str, ...]:
        """Write it anew with those layers put back into fp32 that cost accuracy; once.

        Returns:
            Names of the layers that were put back; none if nothing is left to try.
        """
        if self._controlled:
            return ()
        self._controlled = True
        images, truth = self._judged()
        np.save(self._folder / "judged.npy", images)
        np.save(self._folder / "truth.npy", truth)
        return tuple(self._quantise(path, self._max_drop))

    def _quantise(self, path: Path, max_drop: float | None = None) -> list[str]:
        """Let a child do it, and put its files in place; weights of older ones may be mapped into memory.

        Raises:
            RuntimeError: it failed, with its last words; or the layers that hurt were not found in time.
        """
        asked = {
            "graph": str(self._graph),
            "folder": str(self._folder),
            "transformer": self._transformer,
            "max_drop": max_drop,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", "lensmith.exporting.openvino_graph"],
                input=json.dumps(asked), capture_output=True, text=True, env={**os.environ, "NNCF_CI": "1"},
                timeout=None if max_drop is None else CONTROL_LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"which layers hurt was not found within {CONTROL_LIMIT_S:g} s") from None
        if done.returncode:
            said = done.stderr.strip().splitlines()
            # Killed by a signal it has said nothing of it.
            raise RuntimeError(said[-1] if said and done.returncode > 0 else f"NNCF ended with {done.returncode}")
        for suffix in (".bin", ".xml"):
            (self._folder / "int8").with_suffix(suffix).replace(path.with_suffix(suffix))
        kept: list[str] = json.loads((self._folder / "kept.json").read_text())
        return kept


def _main() -> None:
    """In the child: int8.xml, int8.bin, and the layers that are not in int8 though they could be, in kept.json."""
    import nncf
    import openvino as ov

    asked = json.load(sys.stdin)
    folder = Path(asked["folder"])
    images = np.load(folder / "calibration.npy")

    def inputs() -> tuple[Any, Any]:
        return ov.Core().read_model(asked["graph"]), nncf.Dataset([image[None] for image in images])

    kind = nncf.ModelType.TRANSFORMER if asked["transformer"] else None
    options = {"subset_size": len(images), "model_type": kind}
    made = nncf.quantize(*inputs(), **options)
    kept: list[str] = []
    if asked["max_drop"] is not None:
        whole = _in_int8(made)
        pairs = zip(np.load(folder / "judged.npy"), np.load(folder / "truth.npy"), strict=True)
        samples = [(image[None], int(label)) for image, label in pairs]
        made = nncf.quantize_with_accuracy_control(
            *inputs(),
            nncf.Dataset(samples, lambda sample: sample[0]),
            _accuracy,
            max_drop=asked["max_drop"] / 100,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=min(len(samples), RANKING_IMAGES), num_ranking_workers=1
            ),
            **options,
        )
        kept = sorted(whole - _in_int8(made))
    ov.save_model(made, folder / "int8.xml", compress_to_fp16=False)
    (folder / "kept.json").write_text(json.dumps(kept))


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


if __name__ == "__main__":
    _main()
