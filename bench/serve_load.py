"""Throughput and latency of the service against the same classifier in one process.

    python bench/serve_load.py [BUNDLE IMAGE] [--seconds 10] [--connections 8] [--form] [--json]

Without a bundle: EfficientNet-Lite0 with its ImageNet weights at 224 px, and a photo of 500 × 375 pixels.

Starts `lensmith serve`, sends the image over kept connections for so many seconds, stops it, then lets
`Classifier.stream` answer the same image for as long. The clients share the machine with the service, so the ratio
holds their cost too; say with the numbers how many cores there were and what else ran.
"""

import argparse
import http.client
import itertools
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from lensmith.bundle import GOLDEN, GRAPH, EngineRecord, Manifest, write
from lensmith.classifier import load
from lensmith.engine import open_graph
from lensmith.golden import Golden
from lensmith.image import Preprocessing, preprocess
from lensmith.machine import allowed_cores
from lensmith.serve.process import start_service

BOUNDARY = "lensmith-bench"


def imagenet_bundle(path: Path) -> Path:
    """EfficientNet-Lite0 as it comes, in a bundle."""
    import timm

    from lensmith.graph import write_graph
    from lensmith.train.network.weights import load_pretrained

    how = Preprocessing(image_size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    model = timm.create_model("tf_efficientnet_lite0")
    load_pretrained(model, "tf_efficientnet_lite0")

    def build(folder: Path) -> Manifest:
        graph = write_graph(model.eval(), how.image_size, folder / GRAPH)
        encoded = photo(folder.parent / "golden.jpg").read_bytes()
        answer = open_graph(str(graph), "onnxruntime", "fp32", 1).run(preprocess(encoded, how)[np.newaxis])
        record = EngineRecord(
            engine="onnxruntime", precision="fp32", graph=GRAPH, bytes=graph.stat().st_size,
            golden_tolerance=1e-3, chosen=True,
        )  # fmt: skip
        labels = tuple(str(number) for number in range(1000))
        Golden((encoded,), answer).save(folder / GOLDEN, labels)
        return Manifest(name="imagenet", version="1", labels=labels, preprocessing=how, engines=(record,))

    return write(path, build).path


def photo(path: Path) -> Path:
    """A JPEG of 500 × 375 pixels with detail at every scale."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 255, (15, 20, 3), dtype=np.uint8)).resize((500, 375), Image.BICUBIC)
    noisy = np.asarray(coarse, dtype=np.float32) + random.normal(0, 8, (375, 500, 1))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=90)
    return path


def request_of(encoded: bytes, form: bool) -> tuple[bytes, dict[str, str]]:
    if not form:
        return encoded, {"Content-Type": "image/jpeg"}
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'.encode()
    return head + encoded + f"\r\n--{BOUNDARY}--\r\n".encode(), {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"
    }


def over_http(url: str, encoded: bytes, form: bool, seconds: float, connections: int) -> dict[str, float]:
    body, headers = request_of(encoded, form)
    address = urlsplit(url)
    latencies: list[float] = []
    statuses: list[int] = []
    end = time.perf_counter() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        while (started := time.perf_counter()) < end:
            connection.request("POST", "/predict", body, headers)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
            latencies.append(time.perf_counter() - started)

    threads = [threading.Thread(target=client) for _ in range(connections)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - started
    return {
        "requests_per_second": len(latencies) / taken,
        "p50_ms": float(np.percentile(latencies, 50) * 1000),
        "p99_ms": float(np.percentile(latencies, 99) * 1000),
        "not_200": sum(status != 200 for status in statuses),
    }


def in_process(bundle: Path, image: Path, seconds: float) -> float:
    """Images a second of `Classifier.stream`."""
    classifier = load(bundle)
    end = time.perf_counter() + seconds
    started = time.perf_counter()
    count = sum(
        1 for _ in classifier.stream(itertools.takewhile(lambda _: time.perf_counter() < end, itertools.repeat(image)))
    )
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--form", action="store_true", help="send a multipart form instead of the raw body")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        bundle = given.bundle or imagenet_bundle(Path(scratch) / "bundle")
        image = given.image or photo(Path(scratch) / "photo.jpg")
        encoded = image.read_bytes()
        with start_service(bundle) as service:
            over_http(service.url, encoded, given.form, 1, given.connections)
            found = over_http(service.url, encoded, given.form, given.seconds, given.connections)
        stream = in_process(bundle, image, given.seconds)
    result = {
        "bench": "serve_load",
        **found,
        "stream_images_per_second": stream,
        "ratio": found["requests_per_second"] / stream,
        "connections": given.connections,
        "cores": allowed_cores(),
        "load_average": os.getloadavg()[0],
    }
    if given.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:26} {value if isinstance(value, str) else f'{value:.2f}'}")


if __name__ == "__main__":
    main()
