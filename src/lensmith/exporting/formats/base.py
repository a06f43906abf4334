"""The trained network that every format is exported from, the check that a format answers as PyTorch, its result."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lensmith.bundle.format import GRAPH, Bundle
from lensmith.core.result import Result
from lensmith.core.stats import smoothed
from lensmith.core.templates import template_environment
from lensmith.errors import ParityError
from lensmith.imaging.preprocessing import Preprocessing, Tensor, preprocess
from lensmith.inference.engine import Engine, open_graph
from lensmith.training.models.onnx_export import INPUT, OUTPUT

TOLERANCE = 1e-3
"""Allowed difference of a probability in fp32: another runtime only sums in another order."""

Answer = Callable[[Tensor], Tensor]
"""Images, float32 (N, 3, S, S), normalised → probabilities, float32 (N, C)."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network with all that a format needs.

    Attributes:
        model: a timm network in evaluation mode, on the CPU; float32 (N, 3, S, S) → float32 (N, C) logits.
        labels: C class names, in the order of the outputs.
        preprocessing: resizing and normalisation of an image.
        temperature: T > 0, by which logits are divided before the softmax.
        graph: the network's fp32 ONNX graph, written by `write_graph`.
        images: float32 (N, 3, S, S), a few real images, normalised.
        expected: float32 (N, C), the network's probabilities for `images`, with temperature and smoothing applied.
        name: the bundle's name.
        version: the bundle's version.
        int8: an int8 ONNX graph with the same input and output, for devices without a GPU.
        smoothing: share of each answer that is spread evenly over the classes after the softmax, 0..1.
    """

    model: nn.Module
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    graph: Path
    images: Tensor
    expected: Tensor
    name: str
    version: str
    int8: Path | None = None
    smoothing: float = 0.0

    @classmethod
    def of(cls, bundle: Bundle, model: nn.Module, more: Sequence[bytes] = ()) -> TrainedNetwork:
        """The network of a bundle, with the bundle's golden images.

        Args:
            bundle: the network's bundle.
            model: the network in evaluation mode, on the CPU.
            more: further encoded images that formats have to answer as the network does.
        """
        manifest = bundle.manifest
        encoded = dict.fromkeys((*bundle.golden().images, *more))  # each image once
        images = np.stack([preprocess(image, manifest.preprocessing) for image in encoded])
        with torch.no_grad():
            logits = model(torch.from_numpy(images))
        int8 = next((r.graph for r in manifest.engines if r.graph and r.name == "onnxruntime-int8"), None)
        return cls(
            model=model,
            labels=manifest.labels,
            preprocessing=manifest.preprocessing,
            temperature=manifest.temperature,
            graph=bundle.path / GRAPH,
            images=images,
            expected=smoothed((logits / manifest.temperature).softmax(1).numpy(), manifest.smoothing),
            name=manifest.name,
            version=manifest.version,
            int8=bundle.path / int8 if int8 else None,
            smoothing=manifest.smoothing,
        )

    @property
    def size(self) -> int:
        """Side of the input, S, in pixels."""
        return self.preprocessing.image_size

    @property
    def mixture(self) -> str:
        """Smoothing as the end of an expression for probabilities, in Python or C++; empty text without smoothing."""
        spread = self.smoothing / len(self.labels)
        return f" * {1 - self.smoothing:.9g} + {spread:.9g}" if self.smoothing else ""

    @property
    def cfg(self) -> Mapping[str, Any]:
        """The backbone's configuration in timm; empty where the network is none of timm's."""
        return getattr(self.model, "pretrained_cfg", None) or {}

    @property
    def architecture(self) -> str:
        """The backbone's name in timm."""
        return str(self.cfg.get("architecture") or type(self.model).__name__)

    def example(self) -> torch.Tensor:
        """float32 (2, 3, S, S): an input to trace with; a batch of one would be taken for a fixed dimension."""
        return torch.zeros(2, 3, self.size, self.size)

    def torch_answer(self, module: Callable[[torch.Tensor], Any]) -> Answer:
        """A module, float32 (N, 3, S, S) → logits (N, C), as a function that `check` can call."""

        def answer(batch: Tensor) -> Tensor:
            """float32 (N, 3, S, S) → probabilities, float32 (N, C)."""
            with torch.no_grad():
                logits = module(torch.from_numpy(batch))
            return smoothed((logits / self.temperature).softmax(1).numpy(), self.smoothing)

        return answer

    def check(self, what: str, answer: Answer, tolerance: float = TOLERANCE) -> float:
        """Require PyTorch's answers for a batch and for an image alone: the batch size must not matter.

        Args:
            what: name of the file that is checked, for the error.
            answer: runs that file, float32 (N, 3, S, S) → float32 (N, C).
            tolerance: largest allowed difference of a probability.

        Returns:
            The largest difference of a probability.

        Raises:
            ParityError: the answers differ by more.
        """
        answered = np.concatenate([answer(np.concatenate([self.images, self.images[:1]])), answer(self.images[:1])])
        expected = np.concatenate([self.expected, self.expected[:1], self.expected[:1]])
        if answered.shape == expected.shape:
            difference = float(np.abs(answered - expected).max())
            if difference <= tolerance:  # false of what is no number, too
                return difference
            found = f"Over {len(expected)} answers they differ by up to {difference:.3g}"
        else:
            found = f"Answers of the shape {answered.shape} arrived in the place of {expected.shape}"
        raise ParityError(
            f"{what} was expected to stay within {tolerance:g} of the network's probabilities.",
            f"{found}.",
            "Nothing was written; leave this format out of --formats.",
        )

    def check_graph(
        self, path: Path, engine: str = "onnxruntime", precision: str = "fp32", tolerance: float = TOLERANCE
    ) -> float:
        """Load a graph's file with an engine and `check` its answers."""
        return self.check(path.name, self.open_graph(path, engine, precision).run, tolerance)

    def open_graph(self, path: Path, engine: str = "onnxruntime", precision: str = "fp32") -> Engine:
        """Load a graph's file with an engine that answers at this temperature, smoothed."""
        return open_graph(str(path), engine, precision, 1, self.temperature, self.smoothing)

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON: all that a program needs to use the network."""
        return {
            "name": self.name,
            "version": self.version,
            "architecture": self.architecture,
            "labels": list(self.labels),
            "temperature": self.temperature,
            "smoothing": self.smoothing,
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "input": {"name": INPUT, "dtype": "float32", "shape": ["N", 3, self.size, self.size]},
            "output": {"name": OUTPUT, "dtype": "float32", "shape": ["N", len(self.labels)], "values": "logits"},
        }

    def write_page(self, path: Path, template: str, **more: Any) -> None:
        """Fill in a template of `templates/formats/`, a README, script or configuration, and write it to `path`.

        Args:
            path: file to write.
            template: name of the template, without `.j2`, to which the network is `s`.
            more: further variables of the template.
        """
        how = dataclasses.asdict(self.preprocessing)
        names = {"s": self, "how": how, "classes": len(self.labels), "input": INPUT, "output": OUTPUT, "at": ""}
        text = template_environment("lensmith.exporting").get_template(f"formats/{template}.j2").render(**names, **more)
        path.write_text(text.rstrip() + "\n", encoding="utf-8")

    def write_labels(self, path: Path) -> None:
        """Write one label a line, in the order of the outputs."""
        path.write_text("".join(f"{' '.join(label.splitlines())}\n" for label in self.labels), encoding="utf-8")


@dataclass(frozen=True)
class FormatCheck:
    """The check of one format, after its file was loaded back.

    Attributes:
        difference: largest difference of a probability from PyTorch.
        note: advice for the format's user; may be empty.
        terms: variables of the format's README template.
    """

    difference: float
    note: str = ""
    terms: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FormatExport(Result):
    """A format that was written, loaded back and checked.

    Attributes:
        format: the format's name, a key of FORMATS.
        path: folder of the format's files.
        files: files in the folder, relative to it.
        bytes: size of all files together.
        difference: largest difference of a probability from PyTorch.
        note: advice for the format's user; may be empty.
    """

    format: str
    path: Path
    files: tuple[str, ...]
    bytes: int
    difference: float
    note: str


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON in UTF-8, with class names unescaped."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
