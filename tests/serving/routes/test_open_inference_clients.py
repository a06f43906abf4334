"""The Open Inference Protocol as its own clients speak it, with a real process over real HTTP."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from lensmith.bundle.format import Bundle
from lensmith.inference.classifier import Classifier
from lensmith.serving.child_process import ServiceProcess, start_service

HERE = Path(__file__).parent
NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def service(colour_bundle: Bundle) -> Iterator[ServiceProcess]:
    with start_service(colour_bundle.path, deadline_ms=10_000) as service:
        yield service


@pytest.fixture
def triton(service: ServiceProcess) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(service.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def pictures(shared_colours: Path) -> list[bytes]:
    return [(shared_colours / name / "001.jpg").read_bytes() for name in NAMES]


def test_tritons_client_finds_server_and_model(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("colours")
    assert triton.is_model_ready("colours", "1")
    assert not triton.is_model_ready("birds")
    assert triton.get_server_metadata()["name"] == "lensmith"
    metadata = triton.get_model_metadata("colours", "1")
    assert [each["datatype"] for each in metadata["inputs"]] == ["BYTES", "FP32"]


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("kind", ["image", "input"])
def test_tritons_client_sends_images_and_tensors_both_ways(
    triton: InferenceServerClient,
    classifier: Classifier,
    pictures: list[bytes],
    kind: str,
    binary_in: bool,
    binary_out: bool,
) -> None:
    if kind == "input":
        values: Any = np.stack([classifier.prepare(each) for each in pictures])
        given = InferInput("input", list(values.shape), "FP32")
    else:
        values = np.array([each if binary_in else base64.b64encode(each) for each in pictures], dtype=object)
        given = InferInput("image", [3], "BYTES")
    given.set_data_from_numpy(values, binary_data=binary_in)
    names = ("probabilities", "class_id", "label")
    wanted = [InferRequestedOutput(name, binary_data=binary_out) for name in names]
    answer = triton.infer("colours", [given], outputs=wanted, request_id="mine")
    assert answer.get_response()["id"] == "mine"
    offline = [classifier.classify(each) for each in pictures]
    assert np.array_equal(answer.as_numpy("probabilities"), [each.probabilities for each in offline])
    assert answer.as_numpy("class_id").tolist() == [each.class_id for each in offline]
    labels = [each if isinstance(each, str) else each.decode() for each in answer.as_numpy("label")]
    assert labels == list(NAMES)


def test_tritons_client_gets_all_outputs_unasked_and_classes_as_text(
    triton: InferenceServerClient, pictures: list[bytes]
) -> None:
    given = InferInput("image", [3, 1], "BYTES")
    given.set_data_from_numpy(np.array([[each] for each in pictures], dtype=object))
    assert triton.infer("colours", [given]).as_numpy("class_id").tolist() == [2, 1, 0]
    wanted = [InferRequestedOutput("probabilities", class_count=2)]
    classes = triton.infer("colours", [given], outputs=wanted).as_numpy("probabilities")
    assert classes.shape == (3, 2)
    assert [each.decode().split(":")[1:] for each in classes[:, 0]] == [["2", "red"], ["1", "green"], ["0", "blue"]]


def test_tritons_client_reads_what_went_wrong(triton: InferenceServerClient) -> None:
    given = InferInput("input", [1, 3, 32, 32], "FP32")
    given.set_data_from_numpy(np.full((1, 3, 32, 32), np.nan, np.float32))
    with pytest.raises(InferenceServerException, match=r"\[422\] Expected: finite numbers"):
        triton.infer("colours", [given])
    with pytest.raises(InferenceServerException, match=r"\[404\] One of these was expected: colours@1"):
        triton.infer("birds", [given])
    with pytest.raises(InferenceServerException, match=r"\[404\] There is no /v2/models/colours/config"):
        triton.get_model_config("colours")


@pytest.fixture(scope="session")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with KServe's client, which needs older packages than lensmith's tested set has."""
    folder = tmp_path_factory.mktemp("kserve") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-compile"]
    installed = subprocess.run(
        [*pip, "--only-binary", ":all:", "--requirement", str(HERE / "requirements-kserve.txt")],
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_CONSTRAINT": os.devnull},
    )
    if installed.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(installed.stderr)
        pytest.skip("KServe's client cannot be installed")
    return python


@pytest.mark.slow
def test_kserves_client_asks_and_reads_both_ways(kserve: Path, service: ServiceProcess, shared_colours: Path) -> None:
    asked = subprocess.run(
        [kserve, HERE / "kserve_client.py", service.url, shared_colours / "red" / "001.jpg"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert asked.returncode == 0, asked.stderr
    told = json.loads(asked.stdout.splitlines()[-1])
    one = {"model": "colours", "labels": ["red"], "shape": [1, 3]}
    assert (told.pop("json"), told.pop("binary")) == (one, one)
    assert told.pop("tensor") == told.pop("numbers")
    assert told.pop("refused").startswith("One of these was expected: colours@1")
    assert told == {"live": True, "ready": True, "model_ready": True, "unknown_ready": False}
