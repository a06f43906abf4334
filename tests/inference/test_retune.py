"""A bundle's engines measured anew where it will serve."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.bundle.format import GOLDEN, GRAPH, MANIFEST, Bundle, EngineRecord
from lensmith.bundle.golden import Golden
from lensmith.config import ExportSettings
from lensmith.core.files import sha256
from lensmith.errors import BundleError
from lensmith.inference import retune as room
from lensmith.inference.retune import retune


@pytest.fixture
def several(colour_bundle: Bundle, remake: Callable[..., Bundle]) -> Path:
    """A bundle of ONNX Runtime, OpenVINO, and an engine that is nowhere; the last is chosen."""
    plain = colour_bundle.records()[0]
    engines = tuple(
        plain.model_copy(update={"engine": engine, "precision": precision, "drop": drop, "chosen": drop > 0})
        for engine, precision, drop in (
            ("elsewhere", "int8", 0.1),
            ("onnxruntime", "fp32", 0.0),
            ("openvino", "fp32", 0),
        )
    )
    return remake("several", engines=engines, judged={"max_accuracy_drop": 0.7}).path


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds as given; test_benchmark measures, and the command line's test of `export --retune`."""

    def given(folder: Path, records: list[EngineRecord], *_: object) -> list[EngineRecord]:
        speeds = {"onnxruntime-fp32": 100.0, "openvino-fp32": 200.0}
        return [each.model_copy(update={"images_per_second": speeds[each.name]}) for each in records]

    monkeypatch.setattr(room, "measure_all", given)


def test_engines_are_measured_here_and_the_fastest_that_runs_is_chosen(several: Path) -> None:
    before = Bundle.load(several).manifest
    made = retune(ExportSettings(retune=several))
    after = Bundle.load(several).manifest
    assert [record.name for record in after.engines] == ["openvino-fp32", "onnxruntime-fp32", "elsewhere-int8"]
    assert [record.images_per_second for record in after.engines] == [200.0, 100.0, None]
    assert [record.chosen for record in after.engines] == [True, False, False]
    assert after.engines[2].why == "this lensmith knows no engine elsewhere"
    assert after.machine["cores"] >= 1
    assert (after.judged, after.files) == ({"max_accuracy_drop": 0.7}, before.files)
    assert made.before == "elsewhere-int8"
    assert made.as_dict()["candidates"][0]["chosen"]


def test_a_zip_is_written_anew_and_its_unpacked_copy_left_alone(
    several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    packed = Bundle.load(several).pack(tmp_path / "several.zip")
    unpacked = Bundle.load(packed).path
    retune(ExportSettings(retune=packed))
    assert Bundle.load(packed).records()[0].name == "openvino-fp32"
    assert json.loads((unpacked / MANIFEST).read_text())["engines"][0]["engine"] == "elsewhere"
    with zipfile.ZipFile(packed) as archive:
        assert set(archive.namelist()) == {MANIFEST, GRAPH, GOLDEN}


def test_an_engine_that_answers_otherwise_here_is_not_chosen(several: Path) -> None:
    opened = Bundle.load(several)
    golden = opened.golden()
    wrong = {"openvino-fp32": 1 - golden.probabilities}
    Golden(golden.images, golden.probabilities, wrong).save(several / GOLDEN, opened.labels)
    _change(several, lambda manifest: manifest["files"].update({GOLDEN: sha256(several / GOLDEN)}))
    made = retune(ExportSettings(retune=several))
    assert made.manifest.engines[0].name == "onnxruntime-fp32"
    (why,) = [each.why for each in made.manifest.engines if each.name == "openvino-fp32"]
    assert "differs by" in why


def test_where_none_runs_nothing_is_written(several: Path) -> None:
    _change(several, lambda manifest: manifest["engines"].__delitem__(slice(1, None)))
    before = (several / MANIFEST).read_text()
    with pytest.raises(BundleError, match="elsewhere-int8: "):
        retune(ExportSettings(retune=several))
    assert (several / MANIFEST).read_text() == before


def _change(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
