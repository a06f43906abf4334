"""OpenVINO IR keeps the weights as they are."""

import openvino as ov

from lensmith.exporting.formats.base import FormatExport


def test_nothing_in_it_is_half_precision(written: dict[str, FormatExport]) -> None:
    model = ov.Core().read_model(written["openvino"].path / "model.xml")
    kinds = {node.get_element_type().get_type_name() for op in model.get_ops() for node in op.outputs()}
    assert "f32" in kinds
    assert not kinds & {"f16", "bf16"}
    assert model.input().get_any_name() == "images"
    assert model.output().get_any_name() == "logits"
