"""What another package is needed for fails before the work begins, and names all that are missing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lensmith import api
from lensmith.core.packages import SERVING, TRAINING, require_packages
from lensmith.errors import EXTRA_OF_PACKAGE, LensmithError, MissingPackageError


def test_all_missing_packages_are_named_with_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnxscript", "pyarrow", "albumentations"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as missing:
        require_packages("numpy", "onnxscript", "pyarrow", "albumentations")
    assert "packages onnxscript, pyarrow, albumentations" in missing.value.expected
    assert missing.value.remedy.endswith("pip install 'lensmith[train,parquet]' albumentations")


def test_each_package_of_a_training_comes_with_its_extra() -> None:
    assert {EXTRA_OF_PACKAGE[package] for package in TRAINING} == {"train", "serve"}  # jinja2 is in both
    assert {EXTRA_OF_PACKAGE[package] for package in SERVING} == {"serve"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, grey in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((8, 8, 3), grey + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("blocked", "call"),
    [
        ("onnxscript", lambda: api.train("photos", out="run", preset="fast")),
        ("matplotlib", lambda: api.train("photos", out="run", preset="fast")),
        ("mlflow", lambda: api.train("photos", out="run", preset="fast", tracking="http://127.0.0.1:1")),
        ("onnxscript", lambda: api.export("run")),
        ("openvino", lambda: api.export("run", formats="openvino")),
        ("pyarrow", lambda: api.predict("bundle", "photos", out="rows.parquet")),
        ("fastapi", lambda: api.demo(out="demo")),
        ("onnx_ir", lambda: api.pipeline("pipeline.yaml")),
        ("openvino", lambda: api.pipeline("pipeline.yaml")),
    ],
)
def test_a_verb_fails_before_its_first_step_and_leaves_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch, blocked: str, call: Callable[[], object]
) -> None:
    """Without a package that it needs later on, no verb begins."""
    (photos.parent / "pipeline.yaml").write_text(
        "name: flowers\ndata: photos\nregister: false\nrollout: false\nexport: {formats: openvino}\n"
    )
    monkeypatch.chdir(photos.parent)
    before = sorted(photos.parent.rglob("*"))
    monkeypatch.setitem(sys.modules, blocked, None)
    with pytest.raises(LensmithError) as refused:
        call()
    assert refused.value.exit_code == 2
    assert f"{blocked} is not installed" in refused.value.arrived
    assert "pip install 'lensmith[" in str(refused.value)
    assert sorted(photos.parent.rglob("*")) == before


@pytest.mark.slow
def test_a_training_without_onnxscript_fails_before_its_first_step(photos: Path) -> None:
    code = """
import sys
sys.modules["onnxscript"] = None
from lensmith.cli import main
main(["train", "photos", "--out", "run", "--preset", "fast", "--tracking", "none"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=photos.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "pip install 'lensmith[train]'" in done.stderr
    assert not (photos.parent / "run").exists()
