"""BentoML as its pages on workers and adaptive batching advise: a worker a core, batches of at most 8.

Its `max_latency_ms` stays as it comes. Set to 200 it refused three of four requests of 16 clients, and answered half as
many as without, on a busy machine.

Run by `bentoml serve serve_with_bentoml:Classify`.
"""

# ruff: noqa: D101, D102  # the framework says what these methods do

import os
from typing import Any

import bentoml
import numpy as np
from classify import Graph, answer, pixels_of
from PIL.Image import Image


@bentoml.service(
    workers=int(os.environ["BENCH_CORES"]), metrics={"enabled": False}, logging={"access": {"enabled": False}}
)
class Classify:
    def __init__(self) -> None:
        self.graph = Graph()

    @bentoml.api(batchable=True, max_batch_size=8)
    def predict(self, file: list[Image]) -> list[dict[str, Any]]:
        return [answer(row) for row in self.graph.run(np.stack([pixels_of(picture) for picture in file]))]
