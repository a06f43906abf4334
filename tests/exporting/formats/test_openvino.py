"""OpenVINO IR keeps the weights as they are."""

import numpy as np
import openvino as ov

from lensmith.exporting.formats.base import FormatExport, TrainedNetwork
from lensmith.inference.engine import open_graph


def test_it_answers_as_the_network(written: dict[str, FormatExport], network: TrainedNetwork) -> None:
    engine = open_graph(str(written["openvino"].path / "model.xml"), "openvino", "fp32", 1, network.temperature)
    np.testing.assert_allclose(engine.run(network.images), network.expected, atol=1e-5)
    np.testing.assert_allclose(engine.run(network.images[:1]), network.expected[:1], atol=1e-5)


def test_nothing_in_it_is_half_precision(written: dict[str, FormatExport]) -> None:
    model = ov.Core().read_model(written["openvino"].path / "model.xml")
    kinds = {node.get_element_type().get_type_name() for op in model.get_ops() for node in op.outputs()}
    assert "f32" in kinds
    assert not kinds & {"f16", "bf16"}
    assert model.input().get_any_name() == "images"
    assert model.output().get_any_name() == "logits"
