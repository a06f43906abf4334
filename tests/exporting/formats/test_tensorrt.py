"""The recipe fits the graphs beside it; building needs a GPU."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from lensmith.exporting.formats.base import FormatExport, TrainedNetwork


@pytest.fixture
def folder(written: dict[str, FormatExport]) -> Path:
    return written["tensorrt"].path


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """What records how the package is called."""
    fake = MagicMock()
    fake.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    fake.Builder.return_value.build_serialized_network.return_value = b"plan"
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


@pytest.mark.parametrize(("graph", "precision", "tolerance"), [("model", "fp32", 1e-5), ("model_fp16", "fp16", 0.02)])
def test_both_graphs_answer_in_float32(
    graph: str, precision: str, tolerance: float, folder: Path, network: TrainedNetwork
) -> None:
    path = folder / f"{graph}.onnx"
    answer = network.open_graph(path, precision=precision).run(network.images)
    np.testing.assert_allclose(answer, network.expected, atol=tolerance)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    for tensor, name, sizes in ((model.graph.input[0], "images", (3, 32, 32)), (model.graph.output[0], "logits", (3,))):
        kind = tensor.type.tensor_type
        assert (tensor.name, kind.elem_type) == (name, TensorProto.FLOAT)
        assert kind.shape.dim[0].dim_param
        assert tuple(dim.dim_value for dim in kind.shape.dim[1:]) == sizes


def test_the_fp16_graph_has_its_weights_in_half_precision(folder: Path) -> None:
    kinds = {tensor.data_type for tensor in onnx.load(folder / "model_fp16.onnx").graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    assert TensorProto.FLOAT not in kinds
    assert "not been built or tested" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("precision", "graph"), [("fp16", "model_fp16.onnx"), ("fp32", "model.onnx")])
def test_the_python_script_builds_for_the_graph_s_shapes(
    precision: str, graph: str, folder: Path, tensorrt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "model.plan"
    monkeypatch.setattr(sys, "argv", ["build.py", "--precision", precision, "--out", str(plan)])
    runpy.run_path(str(folder / "build.py"), run_name="__main__")
    assert plan.read_bytes() == b"plan"
    builder = tensorrt.Builder.return_value
    builder.create_network.assert_called_once_with(1 << 1)
    tensorrt.OnnxParser.return_value.parse_from_file.assert_called_once_with(str(folder / graph))
    profile = builder.create_optimization_profile.return_value
    profile.set_shape.assert_called_once_with("images", (1, 3, 32, 32), (8, 3, 32, 32), (32, 3, 32, 32))
    config = builder.create_builder_config.return_value
    config.add_optimization_profile.assert_called_once_with(profile)
    assert config.clear_flag.called == (precision == "fp32")


def test_the_python_script_says_why_a_graph_is_not_read(
    folder: Path, tensorrt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = tensorrt.OnnxParser.return_value
    parser.parse_from_file.return_value = False
    parser.num_errors, parser.get_error.return_value = 1, "no such operator"
    monkeypatch.setattr(sys, "argv", ["build.py"])
    with pytest.raises(SystemExit, match="no such operator"):
        runpy.run_path(str(folder / "build.py"), run_name="__main__")
    assert not (folder / "model.plan").exists()


@pytest.mark.parametrize(("precision", "graph"), [("fp16", "model_fp16.onnx"), ("fp32", "model.onnx")])
def test_the_shell_script_asks_trtexec_for_the_graph_s_shapes(
    precision: str, graph: str, folder: Path, tmp_path: Path
) -> None:
    fake = tmp_path / "trtexec"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run([folder / "build.sh", precision], env=path, capture_output=True, text=True, check=True)
    flags = said.stdout.splitlines()
    assert {f"--onnx={graph}", "--saveEngine=model.plan", "--stronglyTyped"} <= {*flags}
    assert {"--minShapes=images:1x3x32x32", "--optShapes=images:8x3x32x32", "--maxShapes=images:32x3x32x32"} <= {*flags}
    assert ("--noTF32" in flags) == (precision == "fp32")
    refused = subprocess.run([folder / "build.sh", "int4"], env=path, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "int4 arrived" in refused.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.02), ("fp32", 1e-3)])
def test_a_built_engine_answers_as_the_network(
    precision: str, tolerance: float, folder: Path, network: TrainedNetwork, tmp_path: Path
) -> None:
    trt = pytest.importorskip("tensorrt")
    plan = tmp_path / "model.plan"
    command = [sys.executable, folder / "build.py", "--precision", precision, "--out", plan]
    subprocess.run(command, check=True)
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan.read_bytes())
    context = engine.create_execution_context()
    stream = torch.cuda.Stream()

    def logits(batch: torch.Tensor) -> torch.Tensor:
        images = batch.cuda().contiguous()
        answer = torch.empty(len(batch), len(network.labels), device="cuda")
        context.set_input_shape("images", tuple(images.shape))
        context.set_tensor_address("images", images.data_ptr())
        context.set_tensor_address("logits", answer.data_ptr())
        torch.cuda.synchronize()
        assert context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return answer.cpu()

    network.check(plan.name, network.torch_answer(logits), tolerance)
