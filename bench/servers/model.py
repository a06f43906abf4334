"""One network in all formats that the servers need, and the images to send; made once and stored."""

from __future__ import annotations

import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensmith.bundle.format import GOLDEN, EngineRecord, Manifest, write
from lensmith.bundle.golden import Golden
from lensmith.imaging.preprocessing import Preprocessing, preprocess
from lensmith.inference.engine import open_graph
from lensmith.ops.loadtest.images import synthetic_images

NAME, HOW, IMAGES = "resnet18", Preprocessing(224), 16
INT8 = "model-int8.onnx"


@dataclass(frozen=True)
class Model:
    """Paths of a ResNet-18 with random weights.

    Attributes:
        bundle: bundle with the int8 graph.
        int8: statically quantized ONNX graph.
        fp32: ONNX graph before quantization.
        torchscript: the fp32 network as TorchScript.
        images: folder with JPEGs of 500 × 375 pixels.
    """

    bundle: Path
    int8: Path
    fp32: Path
    torchscript: Path
    images: Path


def make(folder: Path) -> Model:
    """Make the files that are missing; this takes half a minute."""
    made = Model(*(folder / name for name in ("bundle", f"bundle/{INT8}", "fp32.onnx", "model.ts", "images")))
    folder.mkdir(parents=True, exist_ok=True)
    if not made.images.exists():
        part = folder / "images.part"
        part.mkdir(exist_ok=True)
        for number, encoded in enumerate(synthetic_images(IMAGES)):
            (part / f"{number:02d}.jpg").write_bytes(encoded)
        part.rename(made.images)
    if not made.bundle.exists():
        print("making the model", file=sys.stderr, flush=True)
        _networks(made)
        write(made.bundle, lambda part: _bundle(part, made))
    return made


def _networks(made: Model) -> None:
    import timm
    import torch

    from lensmith.training.models.onnx_export import write_graph

    torch.manual_seed(0)
    network = timm.create_model(NAME).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the tutorials use it
        torch.jit.trace(network, torch.zeros(1, 3, HOW.image_size, HOW.image_size)).save(str(made.torchscript))
    write_graph(network, HOW.image_size, made.fp32)


def _bundle(part: Path, made: Model) -> Manifest:
    from lensmith.exporting.onnx_graph import StaticInt8

    images = tuple(file.read_bytes() for file in sorted(made.images.iterdir()))
    batch = np.stack([preprocess(encoded, HOW) for encoded in images])
    scratch = made.fp32.with_name("scratch")
    method = StaticInt8(made.fp32, batch, scratch).write(part / INT8)
    shutil.rmtree(scratch)
    labels = tuple(str(number) for number in range(1000))
    answers = open_graph(str(part / INT8), "onnxruntime", "int8", 1).run(batch[:4])
    Golden(images[:4], answers).save(part / GOLDEN, labels)
    record = EngineRecord(
        engine="onnxruntime", precision="int8", graph=INT8, method=method, bytes=(part / INT8).stat().st_size,
        golden_tolerance=0.05, chosen=True,
    )  # fmt: skip
    return Manifest(name=NAME, version="1", labels=labels, preprocessing=HOW, engines=(record,))
