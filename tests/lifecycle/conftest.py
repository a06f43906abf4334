"""Models that are better, faulty or slow; a registry; replicas that follow it behind nginx; and traffic."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, seal
from lensmith.bundle.golden import Golden
from lensmith.imaging.preprocessing import preprocess
from lensmith.inference.engine import OnnxRuntimeEngine
from lensmith.serving.child_process import ServiceProcess, start_service

LABELS = ("blue", "green", "red")
MATRIX = 8 * (2 * np.eye(3, dtype=np.float32)[[2, 1, 0]] - np.ones((3, 3), dtype=np.float32) / 2)
"""Means of the channels red, green, blue → logits of the labels."""


def encoded(colour: Sequence[int], seed: int) -> bytes:
    """A noisy picture of one colour, as PNG."""
    noise = np.random.default_rng(seed).normal(0, 25, (40, 48, 3))
    out = BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def graph(path: Path, weights: Any = MATRIX, bias: Sequence[float] = (0, 0, 0), fails_at: float = 9.0, work: int = 0):
    """Means of the channels → logits.

    Args:
        path: where to write it.
        weights: float32 (3, 3).
        bias: of each label.
        fails_at: mean of the green channel from which on the logits are no numbers; the largest possible is 1.
        work: how often a large matrix is multiplied by itself for nothing.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "axes": np.array([2, 3]),
        "weights": np.asarray(weights, dtype=np.float32),
        "bias": np.asarray(bias, dtype=np.float32),
        "limit": np.array(fails_at, dtype=np.float32),
        "nothing": np.array(0, dtype=np.float32),
        "green": np.array([1]),
        "large": np.eye(900, dtype=np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "weights", "bias"], ["plain"], transB=1),
        # log(limit - mean of green) × 0: nothing, or no number.
        helper.make_node("Gather", ["means", "green"], ["of_green"], axis=1),
        helper.make_node("Sub", ["limit", "of_green"], ["room"]),
        helper.make_node("Log", ["room"], ["logarithm"]),
        helper.make_node("Mul", ["logarithm", "nothing"], ["spoilt"]),
        helper.make_node("Add", ["plain", "spoilt"], ["level0" if work else "logits"]),
    ]
    if work:
        # Depends on the picture, so that no optimiser computes it beforehand.
        nodes += [
            helper.make_node("ReduceMean", ["spoilt"], ["some"], keepdims=0),
            helper.make_node("Sum", ["large", "some"], ["product0"]),
        ]
        nodes += [helper.make_node("MatMul", [f"product{n}", "large"], [f"product{n + 1}"]) for n in range(work)]
        nodes += [
            helper.make_node("ReduceMean", [f"product{work}"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "nothing"], ["vain"]),
            helper.make_node("Add", ["level0", "vain"], ["logits"]),
        ]
    else:
        del constants["large"]
    made = helper.make_graph(
        nodes, "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.fixture(scope="session")
def made(colour_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`made(name, **graph)`: a bundle for the three colours, golden samples and all."""
    root = tmp_path_factory.mktemp("models")

    def make(name: str, **how: Any) -> Path:
        folder = root / name
        folder.mkdir()
        graph(folder / GRAPH, **how)
        images = colour_bundle.golden().images
        batch = np.stack([preprocess(image, colour_bundle.manifest.preprocessing) for image in images])
        engine = OnnxRuntimeEngine(str(folder / GRAPH), "fp32", threads=1)
        Golden(images, engine.run(batch)).save(folder / GOLDEN, LABELS)
        return seal(folder, colour_bundle.manifest.model_copy(update={"version": name})).path

    return make


@dataclass
class Traffic:
    """Clients that send pictures whose class they know, and feedback for some answers.

    Attributes:
        statuses: HTTP status → number of answers to pictures.
        lost: errors of requests without an answer.
        versions: version → number of its answers.
        right: version → number of its correct answers, by the clients' own count.
    """

    url: str
    pictures: Mapping[str, Sequence[bytes]]
    feedback: float
    clients: int
    pause_s: float
    statuses: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(self.clients)]

    def __enter__(self) -> "Traffic":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for each in self._threads:
            each.join(60)

    def _client(self, seed: int) -> None:
        choice, address = random.Random(seed), urlsplit(self.url)
        labels = [label for label, pictures in self.pictures.items() for _ in pictures]
        pictures = [picture for pictures in self.pictures.values() for picture in pictures]
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        while not self._stopping.is_set():
            place = choice.randrange(len(pictures))
            try:
                status, answer = self._post(connection, "/predict", pictures[place])
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with self._lock:
                    self.lost.append(repr(error))
                continue
            with self._lock:
                self.statuses[status] += 1
                if status == 200:
                    version = answer["model"]["version"]
                    self.versions[version] += 1
                    self.right[version] += answer["label"] == labels[place]
            if status == 200 and choice.random() < self.feedback:
                feedback = {"request_id": answer["request_id"], "label": labels[place]}
                status, _ = self._post(connection, "/feedback", json.dumps(feedback).encode(), "application/json")
                assert status < 500, status
            time.sleep(self.pause_s)
        connection.close()

    @staticmethod
    def _post(
        connection: http.client.HTTPConnection, path: str, body: bytes, kind: str = "image/png"
    ) -> tuple[int, Any]:
        connection.request("POST", path, body, {"content-type": kind})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.fixture(scope="session")
def traffic() -> Callable[..., Traffic]:
    """`with traffic(url) as clients: …`; most pictures are red, few are blue, some greenish ones are hard to tell."""
    pictures = {
        "red": [encoded((200, 50, 40), n) for n in range(13)],
        "green": [*(encoded((40, n, 60), n) for n in (170, 180, 190, 235)), encoded((60, 130, 110), 0)],
        "blue": [encoded((30, 60, 200), n) for n in range(2)],
    }

    def make(
        url: str, feedback: float = 0.0, clients: int = 4, pause_s: float = 0.005, only: Sequence[str] = LABELS
    ) -> Traffic:
        return Traffic(url, {label: pictures[label] for label in only}, feedback, clients, pause_s)

    return make


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry in a SQLite file, for all scenarios; each has a model of its own in it."""
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that nobody else uses."""
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def replicas(cache: Path) -> Iterator[Callable[..., list[ServiceProcess]]]:
    """`replicas(name, store, count)`: services that follow NAME@champion, patient, as other tests keep cores busy."""
    with ExitStack() as stack:

        def start(name: str, store: str, count: int = 2, **settings: Any) -> list[ServiceProcess]:
            patient = {"deadline_ms": 20_000, "threads": 1, "batching": "off", "poll_s": 0.5, "tracking_uri": store}
            wanted = {**patient, **settings}
            with ThreadPoolExecutor(count) as at_once:
                starting = [at_once.submit(start_service, f"{name}@champion", **wanted) for _ in range(count)]
            return [stack.enter_context(each.result()) for each in starting]

        yield start


@pytest.fixture(scope="session")
def state_of() -> Callable[[str], dict[str, Any]]:
    """`state_of(url)`: what a replica says at /rollout."""

    def ask(url: str) -> dict[str, Any]:
        address = urlsplit(url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        try:
            connection.request("GET", "/rollout")
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    return ask


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`eventually(found)`: wait until it gives something true, and give that; it fails where that takes minutes."""

    def wait(found: Callable[[], Any], timeout_s: float = 180.0) -> Any:
        end = time.monotonic() + timeout_s
        while not (value := found()):
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.1)
        return value

    return wait
