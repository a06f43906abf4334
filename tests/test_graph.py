"""A torch module as an ONNX graph: any batch size, one file, the same answers."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from lensmith.engine import open_graph
from lensmith.errors import ModelError
from lensmith.graph import write_graph


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_resnet", 32), ("test_vit", 160), pytest.param("tf_efficientnet_lite0", 64, marks=pytest.mark.slow)],
)
def test_the_graph_answers_as_the_module_for_every_batch_size(name: str, size: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    path = write_graph(model, size, tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    engine = open_graph(str(path), "onnxruntime", "fp32", 1)
    for count in (1, 2, 7):
        images = torch.randn(count, 3, size, size)
        with torch.no_grad():
            expected = model(images).numpy()
        np.testing.assert_allclose(engine.logits(images.numpy()), expected, atol=1e-4, rtol=1e-4)


class Undecided(nn.Module):
    """Its way depends on the pixels, which no graph can say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_a_network_that_cannot_be_a_graph_is_named_with_the_exporters_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Of this Undecided it says: Could not guard on data-dependent expression"):
        write_graph(Undecided().eval(), 32, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
