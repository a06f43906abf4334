"""MLServer with a runtime of one's own, as its pages on custom runtimes, adaptive batching and parallel workers advise.

A process a core, batches of 8, a short wait. Images come base64-coded in its JSON, as its content types have it.
`python serve_with_mlserver.py PORT FOLDER` writes the folder and becomes `mlserver start FOLDER`.
"""

# ruff: noqa: D101, D102  # the framework says what these methods do

import json
import os
import sys
from pathlib import Path

import numpy as np
from classify import Graph, answer, pixels
from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Classify(MLModel):
    async def load(self) -> bool:
        self.graph = Graph()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = Base64Codec.decode_input(payload.inputs[0])
        rows = self.graph.run(np.stack([pixels(encoded) for encoded in images]))
        said = [json.dumps(answer(row)) for row in rows]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("answer", said)])


if __name__ == "__main__":
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    cores = int(os.environ["BENCH_CORES"])
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2,
        "parallel_workers": cores, "metrics_endpoint": None, "debug": False, "use_structured_logging": False,
    }  # fmt: skip
    model = {
        "name": "classify", "implementation": "serve_with_mlserver.Classify",
        "max_batch_size": 8, "max_batch_time": 0.005,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.execv(str(Path(sys.executable).with_name("mlserver")), ["mlserver", "start", str(folder)])
