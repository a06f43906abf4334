"""Int8 and fp16 graphs answer nearly as fp32 does, and layers can be left in fp32."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from lensmith.core.stats import first_as_good_as_the_best
from lensmith.exporting import onnx_graph
from lensmith.exporting.onnx_graph import METHODS, StaticInt8, dynamic_int8, float16, operators
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.engine import open_graph

pytestmark = pytest.mark.slow  # all but one need a training and an export


def answers(graph: Path, images: Tensor) -> Tensor:
    return open_graph(str(graph), "onnxruntime", "fp32", threads=1).run(images)


def error(graph: Path, plain: Path, images: Tensor) -> float:
    return float(np.abs(answers(graph, images) - answers(plain, images)).max())


@pytest.fixture
def static(its_graph: Path, its_images: Tensor, tmp_path: Path) -> StaticInt8:
    return StaticInt8(its_graph, its_images[::2], tmp_path / "scratch")


def test_static_int8_is_written_as_quantise_pairs_by_the_method_nearest_to_fp32_with_weights_by_channel(
    static: StaticInt8, its_graph: Path, its_images: Tensor, tmp_path: Path
) -> None:
    method = static.write(tmp_path / "int8.onnx")
    held_out = its_images[::2][-9:]
    graphs = {name: tmp_path / "scratch" / f"{name}.onnx" for name in METHODS} | {method: tmp_path / "int8.onnx"}
    expected = answers(its_graph, held_out)
    errors = {name: np.abs(answers(graph, held_out) - expected).mean(axis=1) for name, graph in graphs.items()}
    assert first_as_good_as_the_best(errors) == method
    kinds = operators(tmp_path / "int8.onnx")
    assert kinds["QuantizeLinear"] > 10
    assert kinds["DequantizeLinear"] > kinds["QuantizeLinear"]
    weights = {tensor.name: tensor for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    scales = [tensor for name, tensor in weights.items() if name.endswith("weight_scale") or "_scale" in name]
    assert any(len(tensor.dims) == 1 and tensor.dims[0] > 1 for tensor in scales)
    assert error(tmp_path / "int8.onnx", its_graph, its_images) < 0.2
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * its_graph.stat().st_size


@pytest.mark.parametrize(("values", "images"), [(1_000_000, 64), (50_000_000, 20), (10_000_000_000, 8)])
def test_fewer_images_make_histograms_where_activations_are_many(values: int, images: int) -> None:
    halves = {"a": (np.array([values // 4, values // 4]), None), "b": (np.array([values // 2]), None)}
    assert onnx_graph._histogram_images(halves) == images


def test_more_and_more_layers_are_excluded_until_nothing_is_left_to_try(
    static: StaticInt8, its_graph: Path, its_images: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    static.write(path)
    before, pairs, excluded = error(path, its_graph, its_images), operators(path)["DequantizeLinear"], []
    while layers := static.exclude_layers(path):
        excluded.append(layers)
    assert [len(layers) for layers in excluded] == sorted(len(layers) for layers in excluded)
    assert set(excluded[0]) <= set(excluded[-1])
    names = {node.name for node in onnx.load(tmp_path / "scratch" / "preprocessed.onnx").graph.node}
    assert set(excluded[-1]) <= names
    assert operators(path)["DequantizeLinear"] <= pairs - len(excluded[-1])
    # No less exact, but for the noise of rounding, which other ranges move.
    assert error(path, its_graph, its_images) <= 1.25 * before


def test_dynamic_int8_turns_matrix_products_into_integer_ones(
    its_graph: Path, its_images: Tensor, tmp_path: Path
) -> None:
    dynamic_int8(its_graph, tmp_path / "scratch", tmp_path / "dynamic.onnx")
    assert operators(tmp_path / "dynamic.onnx")["MatMulInteger"] == 1
    assert error(tmp_path / "dynamic.onnx", its_graph, its_images) < 0.1


def test_fp16_takes_and_gives_float32_and_is_half_as_large(its_graph: Path, its_images: Tensor, tmp_path: Path) -> None:
    float16(its_graph, tmp_path / "half.onnx")
    onnx.checker.check_model(tmp_path / "half.onnx", full_check=True)
    assert error(tmp_path / "half.onnx", its_graph, its_images) < 0.01
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * its_graph.stat().st_size
