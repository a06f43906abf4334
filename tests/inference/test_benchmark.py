"""Speed of an engine, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from lensmith.bundle.format import Bundle
from lensmith.errors import BundleError
from lensmith.inference.benchmark import Speed, measure, measure_all


def test_an_engine_has_every_figure_and_one_that_fails_says_why(colour_bundle: Bundle, tmp_path: Path) -> None:
    (plain,) = colour_bundle.records()
    (tmp_path / "model.onnx").symlink_to(colour_bundle.path / "model.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    broken = plain.model_copy(update={"precision": "int8", "graph": "broken.onnx", "images_per_second": 9.0})
    how, images = colour_bundle.manifest.preprocessing, colour_bundle.golden().images
    failed, found = measure_all(tmp_path, [broken, plain], how, images)
    assert failed.images_per_second is None
    assert "INVALID_PROTOBUF" in failed.why or "broken.onnx" in failed.why
    assert 0 < found.latency_ms < 1000
    assert found.images_per_second > 1
    assert 0 < found.load_s < 60
    assert found.memory_bytes > 1_000_000


def test_a_crash_of_the_engine_is_a_reason_too(
    colour_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -ABRT $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    (plain,) = colour_bundle.records()
    with pytest.raises(BundleError, match=r"onnxruntime-fp32 .*model\.onnx.* -6"):
        measure(colour_bundle.path / "model.onnx", plain, colour_bundle.manifest.preprocessing, [b""])


def test_of_two_measurements_the_better_values_count() -> None:
    first, second = Speed(5, 100, 2, 10), Speed(4, 90, 3, 20)
    assert first.better(second) == second.better(first) == Speed(4, 100, 2, 10)


def test_measuring_loads_no_torch_and_nothing_that_exports() -> None:
    code = "import lensmith.inference.benchmark, lensmith.inference.retune, sys; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"torch", "onnx", "nncf", "sklearn", "jinja2"} & {name.partition(".")[0] for name in loaded}
