"""Weights and a config.json that timm and lensmith both read."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.data import resolve_model_data_config

from lensmith.errors import ModelError
from lensmith.exporting.formats.base import FormatExport, TrainedNetwork
from lensmith.exporting.formats.registry import write_formats
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.models import weights


def test_timm_builds_the_network_from_the_folder_alone(
    written: dict[str, FormatExport], network: TrainedNetwork
) -> None:
    model = timm.create_model(f"local-dir:{written['safetensors'].path}", pretrained=True).eval()
    answer = network.torch_answer(model)(network.images)
    np.testing.assert_allclose(answer, network.expected, atol=1e-5)
    how, found = network.preprocessing, resolve_model_data_config(model)
    assert tuple(found["input_size"]) == (3, 32, 32)
    assert (tuple(found["mean"]), tuple(found["std"])) == (how.mean, how.std)
    assert (found["crop_pct"], found["crop_mode"], found["interpolation"]) == (
        how.crop_fraction,
        "center",
        how.interpolation,
    )
    assert model.pretrained_cfg["label_names"] == ["blue", "green", "red"]


def test_lensmith_starts_a_training_from_it(written: dict[str, FormatExport], network: TrainedNetwork) -> None:
    model = timm.create_model("test_resnet", pretrained=False, num_classes=3)
    said = weights.load_custom(model, written["safetensors"].path)
    assert "head left out" not in said
    np.testing.assert_allclose(network.torch_answer(model.eval())(network.images), network.expected, atol=1e-5)


def test_temperature_and_resize_mode_are_kept(written: dict[str, FormatExport]) -> None:
    config = json.loads((written["safetensors"].path / "config.json").read_text())
    assert config["architecture"] == "test_resnet"
    assert config["lensmith"]["temperature"] == 1.7
    assert config["lensmith"]["preprocessing"]["resize"] == "crop"


def test_position_embeddings_of_another_size_are_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=2, img_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images).softmax(1).numpy()
    how = Preprocessing(64, "letterbox", crop_fraction=1.0)
    network = TrainedNetwork(model, ("a", "b"), how, 1.0, tmp_path, images.numpy(), expected, "small", "1")
    (made,) = write_formats(["safetensors"], network, tmp_path / "formats")
    again = timm.create_model(f"local-dir:{made.path}", pretrained=True).eval()
    np.testing.assert_allclose(network.torch_answer(again)(network.images), expected, atol=1e-6)
    assert again.pretrained_cfg["crop_mode"] == "border"


def test_a_network_that_timm_does_not_build_that_way_is_refused(network: TrainedNetwork, tmp_path: Path) -> None:
    other = timm.create_model("test_resnet", num_classes=3).eval()
    other.layer1.add_module("more", torch.nn.BatchNorm2d(32))
    with pytest.raises(ModelError, match=r"layer1\.more"):
        write_formats(["safetensors"], dataclasses.replace(network, model=other), tmp_path / "formats")
