"""A torch module as an ONNX graph: any batch size, one file, the same answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from lensmith.errors import ModelError
from lensmith.inference.engine import open_graph
from lensmith.training.models.onnx_export import write_graph


@pytest.mark.slow
def test_the_graph_answers_as_the_module_for_every_batch_size_and_gives_no_features_unasked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=7).eval()
    path = write_graph(model, 32, tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    for engine in (open_graph(str(path), each, "fp32", 1) for each in ("onnxruntime", "openvino")):
        for count in (1, 2, 7):
            images = torch.randn(count, 3, 32, 32)
            with torch.no_grad():
                expected = model(images).numpy()
            np.testing.assert_allclose(engine.logits(images.numpy()), expected, atol=1e-4, rtol=1e-4)
        probabilities, features = engine.run_with_features(images.numpy())
        assert features is None
        np.testing.assert_array_equal(probabilities, engine.run(images.numpy()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "features"),
    [
        ("test_vit", {"img_size": 32}, 64),
        ("resnetv2_50", {"layers": (1, 1, 1, 1)}, 2048),  # it ends in a convolution
        ("tf_mobilenetv3_small_075", {}, 1024),  # it pads as TensorFlow does
    ],
)
def test_what_the_last_layer_takes_can_stand_beside_the_logits(
    name: str, options: dict[str, Any], features: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7, **options).eval()
    taken: list[torch.Tensor] = []
    model.get_classifier().register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = model(images).numpy()
        expected_features = taken[-1].flatten(1).numpy()
    path = write_graph(model, 32, tmp_path / "model.onnx", features=True)
    for engine in (open_graph(str(path), each, "fp32", 1) for each in ("onnxruntime", "openvino")):
        np.testing.assert_allclose(engine.logits(images.numpy()), expected, atol=1e-4, rtol=1e-4)
        probabilities, found = engine.run_with_features(images.numpy())
        assert found is not None
        assert (found.shape, found.dtype) == ((3, features), np.float32)
        np.testing.assert_allclose(found, expected_features, atol=1e-3, rtol=1e-3)
        np.testing.assert_array_equal(probabilities, engine.run(images.numpy()))


class Averaged(nn.Module):
    """Two heads, so that no layer is the last."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean((2, 3))
        return (self.one(pooled) + self.other(pooled)) / 2


def test_features_of_a_network_without_one_last_layer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"This one ends in Div\..*Leave --features out"):
        write_graph(Averaged().eval(), 32, tmp_path / "model.onnx", features=True)
    assert list(tmp_path.iterdir()) == []


class Undecided(nn.Module):
    """Its way depends on the pixels, which no graph can say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_a_network_that_cannot_be_a_graph_is_named_with_the_exporters_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Of this Undecided it says: Could not guard on data-dependent expression"):
        write_graph(Undecided().eval(), 32, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
