"""A model repository as Triton expects it."""

import dataclasses
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from lensmith.exporting.formats.base import FormatExport, TrainedNetwork
from lensmith.exporting.formats.from_onnx import triton_name
from lensmith.exporting.formats.registry import write_formats

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCHEMA = {
    # Of Triton's model_config.proto what is used here: message → field → (number, kind, whether there may be several).
    "Input": {"name": (1, "string", 0), "data_type": (2, "DataType", 0), "dims": (4, "int64", 1)},
    "Output": {
        "name": (1, "string", 0), "data_type": (2, "DataType", 0), "dims": (3, "int64", 1),
        "label_filename": (4, "string", 0),
    },
    "Batching": {},
    "ModelConfig": {
        "name": (1, "string", 0), "backend": (17, "string", 0), "default_model_filename": (8, "string", 0),
        "max_batch_size": (4, "int32", 0), "input": (5, "Input", 1), "output": (6, "Output", 1),
        "dynamic_batching": (11, "Batching", 0),
    },
}  # fmt: skip


def parse(text: str) -> Any:
    """A config.pbtxt; unknown fields and wrong kinds are errors."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    file.enum_type.add(name="DataType").value.add(name="TYPE_INVALID", number=0)
    file.enum_type[0].value.add(name="TYPE_FP32", number=11)
    kinds = {"string": _FIELD.TYPE_STRING, "int64": _FIELD.TYPE_INT64, "int32": _FIELD.TYPE_INT32}
    for message, fields in _SCHEMA.items():
        made = file.message_type.add(name=message)
        for name, (number, kind, several) in fields.items():
            label = _FIELD.LABEL_REPEATED if several else _FIELD.LABEL_OPTIONAL
            field = made.field.add(name=name, number=number, label=label)
            if kind in kinds:
                field.type = kinds[kind]
            else:
                field.type = _FIELD.TYPE_ENUM if kind == "DataType" else _FIELD.TYPE_MESSAGE
                field.type_name = f".inference.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()
    return text_format.Parse(text, config)


@pytest.fixture
def model(written: dict[str, FormatExport]) -> Path:
    return written["triton"].path / "models" / "my_colours"


def test_the_configuration_fits_the_graph(model: Path) -> None:
    config = parse((model / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == (model.name, "onnxruntime", 32)
    assert config.HasField("dynamic_batching")
    graph = onnx.load(model / "1" / config.default_model_filename).graph
    for ours, theirs in ((config.input, graph.input), (config.output, graph.output)):
        (one,), (tensor,) = ours, theirs
        assert (one.name, one.data_type) == (tensor.name, 11)
        assert list(one.dims) == [dim.dim_value for dim in tensor.type.tensor_type.shape.dim[1:]]


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
    [
        ("flowers", "flowers"),
        ("my photos/2024", "my_photos_2024"),
        ("../up", "up"),
        ("猫", "classifier"),
        ("a.b", "a_b"),
    ],
)
def test_a_name_becomes_one_that_can_stand_in_an_address(name: str, expected: str) -> None:
    assert triton_name(name) == expected
