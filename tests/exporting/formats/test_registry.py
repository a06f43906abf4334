"""All the formats that were asked for, each found to answer as PyTorch does; or nothing."""

import copy
import dataclasses
import json
import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov
import pytest
import timm
import torch
from torch import nn

from lensmith.core.files import sha256
from lensmith.errors import MissingPackageError, ModelError, OutputError, ParityError, SettingsError
from lensmith.exporting.formats import from_onnx, registry
from lensmith.exporting.formats.base import FormatExport, TrainedNetwork
from lensmith.exporting.formats.registry import FORMATS, TITLES, write_formats
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.models.onnx_export import write_graph


@pytest.mark.slow
def test_every_format_lies_in_a_folder_of_its_own_with_a_readme(
    written: dict[str, FormatExport], formats: Path
) -> None:
    assert {entry.name for entry in formats.iterdir()} == {*FORMATS, "README.md", "formats.json"}
    assert [entry.name for entry in formats.parent.iterdir()] == ["formats"]
    for name, one in written.items():
        assert one.path == formats / name
        assert {"README.md", "config.json"} <= {*one.files}
        assert one.bytes == sum((one.path / file).stat().st_size for file in one.files)
        assert one.difference < 1e-3
        assert json.loads(json.dumps(one.as_dict()))["path"] == str(one.path)


def test_the_index_has_every_file_with_its_hash(written: dict[str, FormatExport], formats: Path) -> None:
    index = json.loads((formats / "formats.json").read_text())
    assert (index["name"], index["version"], index["labels"]) == ("my colours", "trained-8", ["blue", "green", "red"])
    for name, one in written.items():
        assert index["formats"][name]["files"] == {file: sha256(one.path / file) for file in one.files}


def test_readmes_tell_the_contract(written: dict[str, FormatExport], formats: Path, network: TrainedNetwork) -> None:
    how = network.preprocessing
    for folder in (formats, *(one.path for one in written.values())):
        text = (folder / "README.md").read_text()
        for fact in (
            "float32 (N, 3, 32, 32)",
            "float32 (N, 3)",
            "softmax(logits / 1.7) * 0.97 + 0.01",
            str(how.crop_fraction),
        ):
            assert fact in text, folder
    whole = (formats / "README.md").read_text()
    assert "no pickle" in whole
    assert all(f"## {TITLES[name]}" in whole for name in FORMATS)
    assert "deprecated" in (formats / "torchscript" / "README.md").read_text()
    assert "deprecated" in written["torchscript"].note


@pytest.mark.parametrize("name", ["pt2", "torchscript", "safetensors", "openvino"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_readme_says_works(
    name: str, written: dict[str, FormatExport], formats: Path, network: TrainedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    heading = f"## {TITLES[name]}\n"
    section = (formats / "README.md").read_text().partition(heading)[2].partition("\n## ")[0]
    for text, place in ((section, formats), ((written[name].path / "README.md").read_text(), written[name].path)):
        monkeypatch.chdir(place)
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert len(code.strip().splitlines()) <= 8
        found = {"batch": network.images}
        exec(code, found)
        probabilities = 0.97 * (torch.as_tensor(found["logits"]) / network.temperature).softmax(1) + 0.01
        np.testing.assert_allclose(probabilities, network.expected, atol=1e-4)
        np.testing.assert_allclose(found.get("probabilities", probabilities), network.expected, atol=1e-4)


@pytest.mark.parametrize(("supported", "noted"), [((), False), (("BF16",), True)])
def test_answers_that_openvinos_default_precision_would_change_are_noted(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: tuple[str, ...], noted: bool
) -> None:
    def open_graph(self: TrainedNetwork, path: Path, engine: str = "onnxruntime", precision: str = "fp32") -> Any:
        rounding = SimpleNamespace(run=lambda images: np.roll(network.expected, 1, axis=1))
        return rounding if precision == "bf16" else exact(self, path, engine, precision)

    exact = TrainedNetwork.open_graph
    monkeypatch.setattr(from_onnx, "instruction_sets", lambda: supported)
    monkeypatch.setattr(TrainedNetwork, "open_graph", open_graph)
    count = len(network.expected)
    assert (f"{count} of {count} answers change" in from_onnx.write_openvino(network, tmp_path).note) == noted


def test_nothing_in_openvinos_files_is_half_precision(written: dict[str, FormatExport]) -> None:
    model = ov.Core().read_model(written["openvino"].path / "model.xml")
    kinds = {node.get_element_type().get_type_name() for op in model.get_ops() for node in op.outputs()}
    assert "f32" in kinds
    assert not kinds & {"f16", "bf16"}
    assert model.input().get_any_name() == "images"
    assert model.output().get_any_name() == "logits"


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_answers_otherwise_leaves_nothing(name: str, network: TrainedNetwork, tmp_path: Path) -> None:
    other = dataclasses.replace(network, expected=np.roll(network.expected, 1, axis=1))
    with pytest.raises(ParityError, match=r"differ by up to 0\.\d+"):
        write_formats([name], other, tmp_path / "formats")
    assert list(tmp_path.iterdir()) == []


class _Branching(nn.Module):
    """Does another thing where the picture is bright: no exporter can take both ways."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) if x.sum() > 0 else -self.inner(x)


def test_a_backbone_that_cannot_be_written_is_named(network: TrainedNetwork, tmp_path: Path) -> None:
    branching = dataclasses.replace(network, model=_Branching(network.model).eval())
    with pytest.raises(ModelError, match=r"pt2 .*_Branching"):
        write_formats(["triton", "pt2"], branching, tmp_path / "formats")
    with pytest.raises(ParityError, match=r"model\.pt\b"):  # a trace has one way for all
        write_formats(["torchscript"], branching, tmp_path / "formats")
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'lensmith\[openvino\]'"):
        write_formats(["openvino"], network, tmp_path / "formats")


@pytest.mark.parametrize(("names", "arrived"), [((), "None"), (("pt2", "coreml"), "coreml")])
def test_unknown_formats_are_refused(
    names: tuple[str, ...], arrived: str, network: TrainedNetwork, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=rf"pt2, torchscript.* {arrived}\b"):
        write_formats(names, network, tmp_path / "formats")


def test_a_format_named_twice_is_written_once(network: TrainedNetwork, tmp_path: Path) -> None:
    made = write_formats(["triton", "safetensors", "triton"], network, tmp_path / "new" / "formats")
    assert [one.format for one in made] == ["triton", "safetensors"]


def test_older_formats_are_replaced_only_when_asked(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "formats"
    write_formats(["triton"], network, folder)
    with pytest.raises(OutputError, match="--overwrite"):
        write_formats(["safetensors"], network, folder)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_index", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_formats(["safetensors"], network, folder, replace=True)
    assert (folder / "triton").is_dir()
    write_formats(["safetensors"], network, folder, replace=True)
    assert {entry.name for entry in folder.iterdir()} == {"safetensors", "README.md", "formats.json"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["formats"]


def test_what_is_no_folder_of_formats_is_not_replaced(network: TrainedNetwork, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError):
        write_formats(["triton"], network, tmp_path, replace=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_weights_in_another_order_of_memory_make_no_difference(network: TrainedNetwork, tmp_path: Path) -> None:
    model = copy.deepcopy(network.model).to(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = ["pt2", "torchscript", "safetensors"]
        write_formats(names, dataclasses.replace(network, model=model), tmp_path / "formats")
    (weight,) = (value for name, value in model.named_parameters() if name == "conv1.0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)  # the model itself is left as it is


def test_one_image_is_enough_to_check_with(network: TrainedNetwork, tmp_path: Path) -> None:
    one = dataclasses.replace(network, images=network.images[:1], expected=network.expected[:1])
    write_formats(["torchscript", "edge"], one, tmp_path / "formats")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "formats"), [("test_vit", tuple(FORMATS)), ("test_convnext", ("pt2", "torchscript", "safetensors"))]
)
def test_other_families_of_backbones_can_be_written(name: str, formats: tuple[str, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4).eval()
    images = torch.randn(3, 3, 160, 160)
    with torch.no_grad():
        expected = model(images).softmax(1).numpy()
    graph = tmp_path / "model.onnx"
    if "openvino" in formats:
        write_graph(model, 160, graph)
    labels = ("a", "b", "c", "d")
    network = TrainedNetwork(model, labels, Preprocessing(160), 1.0, graph, images.numpy(), expected, name, "1")
    assert max(one.difference for one in write_formats(formats, network, tmp_path / "formats")) < 1e-4
