"""Classification as the peers run it: lensmith's preprocessing and the same ONNX graph, so that only serving differs.

Imported in the peers' own environments, with NumPy, Pillow and ONNX Runtime.
"""

from __future__ import annotations

import os

import numpy as np
import onnxruntime as ort
from PIL import Image

from lensmith.imaging.preprocessing import Preprocessing, normalise, preprocess, resize, shortest_side_px

HOW = Preprocessing(224)


class Graph:
    """The graph in $BENCH_GRAPH on one thread: each worker process has a core, as all peers' documentation advises."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(os.environ["BENCH_GRAPH"], options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.run(np.zeros((1, 3, HOW.image_size, HOW.image_size), np.float32))

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Run the graph: float32 (N, 3, S, S), normalised → float32 (N, C), probabilities 0..1."""
        logits = self._session.run(None, {self._input: batch})[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def pixels(encoded: bytes) -> np.ndarray:
    """Preprocess encoded bytes → float32 (3, S, S), normalised."""
    return preprocess(encoded, HOW)


def pixels_of(picture: Image.Image) -> np.ndarray:
    """Preprocess an opened picture, by the same scaled decoding → float32 (3, S, S), normalised."""
    side = shortest_side_px(HOW)
    picture.draft("RGB", (side, side))
    return normalise(resize(picture.convert("RGB"), HOW), HOW)


def answer(probabilities: np.ndarray) -> dict[str, object]:
    """The likeliest class by probabilities, float32 (C,)."""
    best = int(probabilities.argmax())
    return {"class_id": best, "confidence": float(probabilities[best])}
