"""OpenVINO IR keeps the weights as they are."""

import numpy as np
import openvino as ov

from lensmith.exporting.formats.base import Source, Written
from lensmith.inference.engine import open_graph


def test_it_answers_as_the_network(written: dict[str, Written], source: Source) -> None:
    engine = open_graph(str(written["openvino"].path / "model.xml"), "openvino", "fp32", 1, source.temperature)
    np.testing.assert_allclose(engine.run(source.images), source.expected, atol=1e-5)
    np.testing.assert_allclose(engine.run(source.images[:1]), source.expected[:1], atol=1e-5)


def test_nothing_in_it_is_half_precision(written: dict[str, Written]) -> None:
    model = ov.Core().read_model(written["openvino"].path / "model.xml")
    kinds = {node.get_element_type().get_type_name() for op in model.get_ops() for node in op.outputs()}
    assert "f32" in kinds
    assert not kinds & {"f16", "bf16"}
    assert model.input().get_any_name() == "images"
    assert model.output().get_any_name() == "logits"
