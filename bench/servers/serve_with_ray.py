"""Ray Serve as its pages on performance and batching advise: a replica a core, `@serve.batch` of 8, a short wait."""

# ruff: noqa: D101, D102  # the framework says what these methods do

import os
import signal
import sys

import numpy as np
import ray
from classify import Graph, answer, pixels
from ray import serve

CORES = int(os.environ["BENCH_CORES"])


@serve.deployment(num_replicas=CORES, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=32)
class Classify:
    def __init__(self):
        self.graph = Graph()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005)
    async def many(self, files):
        return [answer(row) for row in self.graph.run(np.stack([pixels(encoded) for encoded in files]))]

    async def __call__(self, request):
        form = await request.form()
        return await self.many(await form["file"].read())


if __name__ == "__main__":
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[1])},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    serve.run(Classify.bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
