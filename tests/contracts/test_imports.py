"""What may not be loaded, shown in fresh interpreters."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lensmith.bundle.format import Bundle

PREDICT = """
import sys
from lensmith.inference.classifier import load
assert load({bundle!r}).predict([{image!r}])[0].label == "red"
"""


def loaded_after(code: str) -> set[str]:
    """Top-level packages in sys.modules after running `code` in a new interpreter."""
    program = code + "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_importing_lensmith_loads_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "timm", "fastapi", "starlette", "onnxruntime", "numpy", "pydantic", "PIL"}
    assert not loaded_after("import lensmith") & heavy


@pytest.mark.slow
def test_what_runs_a_bundle_leaves_torch_out() -> None:
    rooms = "lensmith.serving.app, lensmith.serving.run, lensmith.inference.batch, lensmith.evaluation.run"
    assert not loaded_after(f"import {rooms}") & {"torch", "torchvision", "timm"}


def test_predicting_leaves_torch_out(colour_bundle: Bundle, colours: Path) -> None:
    code = PREDICT.format(bundle=str(colour_bundle.path), image=str(colours / "red" / "000.png"))
    assert not loaded_after(code) & {"torch", "fastapi"}


SERVE = """
from fastapi.testclient import TestClient
from lensmith.config import ServeSettings
from lensmith.serving.app import create_app
from lensmith.serving.execution.model_manager import ModelManager

settings = ServeSettings(bundle={bundle!r})
models = ModelManager.load(settings)
assert models.active.classifier.engine.name == {engine!r}
with TestClient(create_app(models, settings)) as client:
    with open({image!r}, "rb") as file:
        assert client.post("/predict", content=file.read()).json()["label"] == "red"
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_serving_a_bundle_loads_nothing_that_makes_one(
    engine: str, colour_bundle: Bundle, remake: Callable[..., Bundle], colours: Path
) -> None:
    record = colour_bundle.records()[0].model_copy(update={"engine": engine})
    bundle = remake("served", engines=(record,)).path
    code = SERVE.format(bundle=str(bundle), engine=engine, image=str(colours / "red" / "000.png"))
    assert not loaded_after(code) & {"torch", "torchvision", "timm", "onnx", "onnxscript", "nncf", "sklearn", "jinja2"}


def test_help_imports_no_room() -> None:
    code = "import lensmith.cli\ntry: lensmith.cli.main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_after(code) & {"torch", "numpy", "pydantic", "fastapi", "PIL"}


LINES = """
import lensmith.cli
for line in (*([verb, "--help"] for verb in lensmith.cli.VERBS), ["recipe", "show", "best"]):
    try:
        lensmith.cli.main(line)
    except SystemExit as ended:
        assert not ended.code
"""


def test_the_help_of_no_verb_and_showing_a_recipe_load_no_torch() -> None:
    assert not loaded_after(LINES) & {"torch", "timm", "onnxruntime"}
