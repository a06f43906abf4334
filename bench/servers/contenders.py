"""Servers by name: how each is started, and what it is sent.

All get the same images as multipart forms in the field `file`, but for MLServer, which takes JSON with base64. Peers
have the same int8 graph as lensmith, its preprocessing, one thread of ONNX Runtime per process and one process per
core, so that only the serving differs. They are configured as their documentation recommends for CPUs, to the best of
our knowledge: batches of at most 8, delayed by 5 ms at most; beyond that they are not tuned. The tutorials' servers are
as the tutorials have them, transforms included.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.core.machine import allowed_cores, cache_dir
from lensmith.ops.loadtest.target import Target, image_requests

from .environment import HERE, python_of
from .model import Model

TUTORIAL, TUTORIAL_ONNX, LENSMITH = "tutorial-torch", "tutorial-onnx", "lensmith"


@dataclass(frozen=True)
class Contender:
    """One server.

    Attributes:
        name: the server's name.
        command: (model, port, an empty folder) → command line.
        graph: the graph that $BENCH_GRAPH names, `int8` or `fp32`.
        peer: whether it is a serving framework, with an environment of its own.
        path: path of its predictions.
        requests: (address, images) → requests as bytes.
        unpack: JSON of an answer → `class_id` and `confidence`.
    """

    name: str
    command: Callable[[Model, int, Path], Sequence[str | Path]]
    graph: str = "int8"
    peer: bool = False
    path: str = "/predict"
    requests: Callable[[Target, Sequence[bytes]], Sequence[bytes]] = lambda t, images: image_requests(
        t, images, form=True
    )
    unpack: Callable[[Any], dict[str, Any]] = lambda answer: answer

    def environment(self, model: Model) -> dict[str, str]:
        """The child's environment variables."""
        return {
            **os.environ,
            "BENCH_GRAPH": str((model.int8 if self.graph == "int8" else model.fp32).resolve()),
            "BENCH_TORCHSCRIPT": str(model.torchscript.resolve()),
            "BENCH_CORES": str(allowed_cores()),
            **(_PEERS_OWN if self.peer else {}),
        }


_PEERS_OWN = {
    "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)]),  # for `classify`, and lensmith.imaging
    "BENTOML_DO_NOT_TRACK": "True",
    "BENTOML_HOME": str(cache_dir() / "bench-servers" / "bentoml-home"),
    "RAY_USAGE_STATS_ENABLED": "0",
}


def _script(name: str, peer: str | None = None) -> Callable[[Model, int, Path], Sequence[str | Path]]:
    file = HERE / f"serve_with_{name}.py"
    return lambda model, port, folder: [python_of(peer) if peer else sys.executable, file, str(port)]


def _bentoml(model: Model, port: int, folder: Path) -> Sequence[str | Path]:
    started = ["serve", "serve_with_bentoml:Classify", "--host", "127.0.0.1", "--port", str(port)]
    return [python_of("bentoml").with_name("bentoml"), *started, "--working-dir", HERE]


def _mlserver(model: Model, port: int, folder: Path) -> Sequence[str | Path]:
    return [python_of("mlserver"), HERE / "serve_with_mlserver.py", str(port), folder]


def _lensmith(model: Model, port: int, folder: Path) -> Sequence[str | Path]:
    return [sys.executable, "-m", "lensmith", "serve", model.bundle, "--port", str(port)]


def _base64_json(target: Target, images: Sequence[bytes]) -> Sequence[bytes]:
    made = []
    for encoded in images:
        data = [base64.b64encode(encoded).decode()]
        given = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": {"content_type": "base64"}}
        made.append(target.request(json.dumps({"inputs": [{**given, "data": data}]}).encode(), "application/json"))
    return made


CONTENDERS = {
    each.name: each
    for each in (
        Contender(TUTORIAL, _script("fastapi_torch")),
        Contender(TUTORIAL_ONNX, _script("fastapi_onnx"), graph="fp32"),
        Contender("tutorial-onnx-int8", _script("fastapi_onnx")),
        Contender("litserve", _script("litserve", "litserve"), peer=True),
        Contender("bentoml", _bentoml, peer=True, unpack=lambda answer: answer[0]),
        Contender("ray", _script("ray", "ray"), peer=True),
        Contender(
            "mlserver",
            _mlserver,
            peer=True,
            path="/v2/models/classify/infer",
            requests=_base64_json,
            unpack=lambda answer: json.loads(answer["outputs"][0]["data"][0]),
        ),
        Contender(LENSMITH, _lensmith),
    )
}
