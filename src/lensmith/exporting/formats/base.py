"""What every format is made from, what it came to, and the check that it answers as PyTorch does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lensmith.bundle.format import GRAPH, Bundle
from lensmith.errors import ParityError
from lensmith.imaging.preprocessing import Preprocessing, Tensor, preprocess
from lensmith.training.models.onnx_export import INPUT, OUTPUT

TOLERANCE = 1e-3
"""Of a probability, in fp32: another runtime sums in another order, and no more than that."""

Answer = Callable[[Tensor], Tensor]
"""Prepared images, float32 (N, 3, S, S) → probabilities, float32 (N, C)."""


@dataclass(frozen=True)
class Source:
    """A trained network with what is known of it.

    Attributes:
        model: a timm network in evaluation mode, on the CPU; float32 (N, 3, S, S) → float32 (N, C) logits.
        labels: C class names, in the order of the outputs.
        preprocessing: how an image becomes its input.
        temperature: what logits are divided by before the softmax.
        graph: its fp32 ONNX graph, as `write_graph` writes it.
        images: a few prepared real images, float32 (N, 3, S, S).
        expected: the network's probabilities for them, float32 (N, C), with the temperature applied.
        name: of the bundle.
        version: of the bundle.
        int8: an int8 ONNX graph with the same input and output, for devices without a GPU.
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

    @classmethod
    def of(cls, bundle: Bundle, model: nn.Module) -> Source:
        """The network of a bundle, with the bundle's golden images.

        Args:
            bundle: exported from it.
            model: in evaluation mode, on the CPU.
        """
        manifest = bundle.manifest
        images = np.stack([preprocess(image, manifest.preprocessing) for image in bundle.golden().images])
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
            expected=(logits / manifest.temperature).softmax(1).numpy(),
            name=manifest.name,
            version=manifest.version,
            int8=bundle.path / int8 if int8 else None,
        )

    @property
    def size(self) -> int:
        """S, in pixels."""
        return self.preprocessing.image_size

    @property
    def cfg(self) -> Mapping[str, Any]:
        """What timm knows of the backbone; empty where the network is none of timm's."""
        return getattr(self.model, "pretrained_cfg", None) or {}

    @property
    def architecture(self) -> str:
        """Its name in timm."""
        return str(self.cfg.get("architecture") or type(self.model).__name__)

    def example(self) -> torch.Tensor:
        """An input to trace with. Two images, since one would be taken for a fixed dimension."""
        return torch.zeros(2, 3, self.size, self.size)

    def torch_answer(self, module: Callable[[torch.Tensor], Any]) -> Answer:
        """A module that gives logits, as something that can be checked."""

        def answer(batch: Tensor) -> Tensor:
            with torch.no_grad():
                logits = module(torch.from_numpy(batch))
            probabilities: Tensor = (logits / self.temperature).softmax(1).numpy()
            return probabilities

        return answer

    def check(self, what: str, answer: Answer, tolerance: float = TOLERANCE) -> float:
        """Require PyTorch's answers, of a batch and of an image alone: the batch size must not matter.

        Args:
            what: file that is checked.
            answer: asks it.
            tolerance: largest allowed difference of a probability.

        Returns:
            The largest difference of a probability.

        Raises:
            ParityError: names the numbers.
        """
        answered = [answer(np.concatenate([self.images, self.images[:1]])), answer(self.images[:1])]
        expected = [self.expected, self.expected[:1], self.expected[:1]]
        return require_same(what, np.concatenate(answered), np.concatenate(expected), tolerance)

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON: all that a program needs to use the network."""
        return {
            "name": self.name,
            "version": self.version,
            "architecture": self.architecture,
            "labels": list(self.labels),
            "temperature": self.temperature,
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "input": {"name": INPUT, "dtype": "float32", "shape": ["N", 3, self.size, self.size]},
            "output": {"name": OUTPUT, "dtype": "float32", "shape": ["N", len(self.labels)], "values": "logits"},
        }

    def write_config(self, folder: Path) -> None:
        """Put `describe` into config.json."""
        write_json(folder / "config.json", self.describe())

    def write_labels(self, path: Path) -> None:
        """One label a line, in the order of the outputs."""
        path.write_text("".join(f"{' '.join(label.splitlines())}\n" for label in self.labels), encoding="utf-8")


@dataclass(frozen=True)
class Outcome:
    """What came of one format.

    Attributes:
        difference: largest one of a probability from PyTorch, when it was loaded back.
        note: what its user should know; empty if nothing.
        terms: names that its README uses, and their values.
    """

    difference: float
    note: str = ""
    terms: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """A format that was written, loaded back and found right.

    Attributes:
        format: its name.
        path: its folder.
        files: what is in it, relative to it.
        bytes: of them all.
        difference: largest one of a probability from PyTorch.
        note: what its user should know; empty if nothing.
    """

    format: str
    path: Path
    files: tuple[str, ...]
    bytes: int
    difference: float
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path)}


def require_same(what: str, answered: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> float:
    """The largest difference between two sets of probabilities, float32 (N, C).

    Args:
        what: file that answered.
        answered: by it.
        expected: of it.
        tolerance: largest allowed difference.

    Raises:
        ParityError: they differ by more, or in their shapes.
    """
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


def write_json(path: Path, content: Any) -> None:
    """Readable JSON, names of classes as they are."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
