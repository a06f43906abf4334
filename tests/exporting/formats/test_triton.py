"""A model repository as Triton expects it."""

import dataclasses
from pathlib import Path

import onnx
import pytest

from lensmith.exporting.formats.base import FormatExport, TrainedNetwork
from lensmith.exporting.formats.from_onnx import triton_name
from lensmith.exporting.formats.registry import write_formats

CONFIGURATION = """\
name: "my_colours"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 32
input [
  {
    name: "images"
    data_type: TYPE_FP32
    dims: [ 3, 32, 32 ]
  }
]
output [
  {
    name: "logits"
    data_type: TYPE_FP32
    dims: [ 3 ]
    label_filename: "labels.txt"
  }
]
dynamic_batching { }
"""
"""Triton reads this as a message ModelConfig of its model_config.proto, which has these fields."""


@pytest.fixture
def model(written: dict[str, FormatExport]) -> Path:
    return written["triton"].path / "models" / "my_colours"


def test_the_configuration_fits_the_graph(model: Path) -> None:
    assert (model / "config.pbtxt").read_text() == CONFIGURATION
    graph = onnx.load(model / "1" / "model.onnx").graph
    for (tensor,), name, dims in ((graph.input, "images", [3, 32, 32]), (graph.output, "logits", [3])):
        assert tensor.name == name
        assert [dim.dim_value for dim in tensor.type.tensor_type.shape.dim[1:]] == dims


def test_labels_are_one_a_line_in_the_order_of_the_outputs(
    model: Path, network: TrainedNetwork, tmp_path: Path
) -> None:
    assert (model / "labels.txt").read_text().splitlines() == ["blue", "green", "red"]
    odd = dataclasses.replace(network, labels=("a b", "two\nlines", "grün"))
    (made,) = write_formats(["triton"], odd, tmp_path / "formats")
    lines = (made.path / "models" / "my_colours" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["a b", "two lines", "grün"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("flowers", "flowers"), ("my photos/2024", "my_photos_2024"), ("../up", "up"), ("猫", "classifier")],
)
def test_a_name_becomes_one_that_can_stand_in_an_address(name: str, expected: str) -> None:
    assert triton_name(name) == expected
