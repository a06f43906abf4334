"""LitServe as its pages on batching and on speed advise for CPUs: batches of 8, a short wait, a worker a core."""

# ruff: noqa: D101, D102  # the framework says what these methods do

import os
import sys

import litserve as ls
import numpy as np
from classify import Graph, answer, pixels


class Classify(ls.LitAPI):
    def setup(self, device):
        self.graph = Graph()

    def decode_request(self, request):
        return pixels(request["file"].file.read())

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, batch):
        return self.graph.run(batch)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return answer(output)


if __name__ == "__main__":
    cores = int(os.environ["BENCH_CORES"])
    api = Classify(max_batch_size=8, batch_timeout=0.005)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=cores)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
