"""All candidates of a target tried on a real run, and the choice explained."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from lensmith.bundle.format import GRAPH, Bundle, EngineRecord, Manifest
from lensmith.config import ExportSettings
from lensmith.core.machine import instruction_sets
from lensmith.errors import ParityError
from lensmith.exporting import evaluate_candidates as room
from lensmith.exporting.candidates import BASELINE, Candidate
from lensmith.exporting.evaluate_candidates import EngineSearch
from lensmith.exporting.export import ExportResult, export
from lensmith.exporting.samples import preprocess_samples
from lensmith.inference.engine import open_graph
from lensmith.inference.inspection import verify
from lensmith.training.run_dir.run import Run

pytestmark = pytest.mark.slow  # they need a training and an export

CPU = {
    "onnxruntime-fp32", "onnxruntime-int8", "onnxruntime-int8-dynamic",
    "openvino-fp32", "openvino-bf16", "openvino-int8",
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(well_fed: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    out = tmp_path_factory.mktemp("chosen") / "bundle"
    return export(ExportSettings(run=well_fed, out=out, max_accuracy_drop=5, min_precision=0.5))


def test_every_candidate_is_in_the_table_with_its_figures_or_its_reason(exported: ExportResult) -> None:
    rows = {row["name"]: row for row in json.loads(json.dumps(exported.as_dict()))["candidates"]}
    assert rows.keys() == CPU
    for row in rows.values():
        figures = [row[name] for name in ("accuracy", "latency_ms", "images_per_second", "bytes", "drop", "load_s")]
        assert None not in figures or row["why"]
    assert rows["onnxruntime-fp32"]["accuracy"] == 1.0
    assert rows["onnxruntime-int8-dynamic"]["why"] == "hardly a layer here is a matrix product"
    assert rows["openvino-int8"]["method"] == "NNCF"
    assert sum(row["chosen"] for row in rows.values()) == 1


def test_the_bundle_runs_on_each_engine_that_may_serve_and_holds_no_graph_of_another(exported: ExportResult) -> None:
    bundle = Bundle.load(exported.bundle)
    graphs = {record.graph for record in bundle.manifest.engines if record.graph}
    files = set(bundle.manifest.files) - {"golden.npz", "image_hashes.npz", "report.html", "README.md"}
    assert {name for name in files if not name.endswith(".bin")} == graphs
    states = {answer.engine: answer.state for answer in verify(exported.bundle).answers}
    assert states["onnxruntime-fp32"] == states["openvino-fp32"] == "right"
    assert "wrong" not in states.values()
    if "VNNI" in instruction_sets():
        assert states["onnxruntime-int8"] == states["openvino-int8"] == "right"


def test_the_manifest_says_where_and_on_what_it_was_chosen(exported: ExportResult) -> None:
    manifest = Bundle.load(exported.bundle).manifest
    assert manifest.judged == {"part": "val", "images": 21, "max_accuracy_drop": 5.0}
    assert manifest.machine["instruction_sets"] == instruction_sets()
    assert manifest.calibration["images"] == 21
    assert manifest.abstention is not None
    assert manifest.engines[0].chosen
    assert manifest.engines[0].engine == exported.evaluation.engine
    assert exported.evaluation.metrics.accuracy >= 0.95
    assert "Engines" in (exported.bundle / "report.html").read_text()


def test_too_few_images_to_calibrate_are_a_reason_and_no_error(trained: Path, tmp_path: Path) -> None:
    made = export(ExportSettings(run=trained, out=tmp_path / "bundle", target="edge"))
    whys = {record.name: record.why for record in made.manifest.engines}
    assert whys["onnxruntime-int8"] == "12 training images, and 32 are needed to calibrate"
    assert made.manifest.engines[0].name == "onnxruntime-fp32"
    assert [each.format for each in made.formats] == ["edge"]
    assert (tmp_path / "bundle-formats" / "edge" / "classify.py").exists()


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="CUDA is on this machine")
def test_what_is_not_on_this_machine_is_in_the_table(trained: Path, tmp_path: Path) -> None:
    made = export(ExportSettings(run=trained, out=tmp_path / "bundle", target="gpu"))
    whys = {record.name: record.why for record in made.manifest.engines}
    assert "no CUDAExecutionProvider" in whys["onnxruntime-cuda-fp16"]
    assert made.manifest.engines[0].name == "onnxruntime-fp32"


class Spoilt:
    """Builds graphs that always answer class 0, until layers were excluded so many times."""

    def __init__(self, plain: Path, excluded: int | None) -> None:
        self._plain, self._left = plain, excluded
        self.asked = 0

    def write(self, path: Path) -> str:
        model = onnx.load(self._plain)
        bias = next(t for t in model.graph.initializer if t.name.endswith("fc.bias") or list(t.dims) == [3])
        bias.CopyFrom(numpy_helper.from_array(np.array([100, 0, 0], np.float32), bias.name))
        onnx.save(model, path)
        return "spoilt"

    def exclude_layers(self, path: Path) -> tuple[str, ...]:
        self.asked += 1
        if self._left is None:
            return ()
        self._left -= 1
        if self._left == 0:
            path.write_bytes(self._plain.read_bytes())
        return tuple("layer" for _ in range(self.asked))


def int8(builder: Spoilt) -> Candidate:
    return Candidate("onnxruntime", "int8", "int8.onnx", builder.write, builder.exclude_layers)


@pytest.fixture
def search(
    its_graph: Path, well_fed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., EngineSearch]:
    """`search(speeds)`: on the run's validation part; speeds are as given, since test_speed measures real ones."""
    run = Run.open(well_fed)
    (tmp_path / GRAPH).write_bytes(its_graph.read_bytes())
    samples = run.images.part("val")
    tensors, _ = preprocess_samples(run.images, samples, len(samples), run.preprocessing)
    manifest = Manifest(
        name="colours", version="1", labels=run.images.labels, preprocessing=run.preprocessing,
        engines=(BASELINE.record(),),
    )  # fmt: skip
    draft = Bundle(tmp_path, manifest)

    def make(speeds: dict[str, float]) -> EngineSearch:
        def given(folder: Path, records: list[EngineRecord], *_: object) -> list[EngineRecord]:
            return [each.model_copy(update={"images_per_second": speeds[each.name]}) for each in records]

        monkeypatch.setattr(room, "measure_all", given)
        reference = open_graph(str(its_graph), "onnxruntime", "fp32", threads=1).run(tensors)
        return EngineSearch(draft, run.images, samples, "val", reference, 1e-3, 0.999, 0.5)

    return make


def test_a_fast_engine_that_loses_too_much_is_mended_and_chosen(
    search: Callable[..., EngineSearch], its_graph: Path, tmp_path: Path
) -> None:
    builder = Spoilt(its_graph, excluded=2)
    spoilt = int8(builder)
    first, second = search({"onnxruntime-fp32": 100, "onnxruntime-int8": 300}).run([BASELINE, spoilt], [])
    assert first.record.name == "onnxruntime-int8"
    assert first.record.kept == ("layer", "layer")
    assert first.record.drop == 0
    assert first.record.method == "spoilt"
    assert second.record.name == "onnxruntime-fp32"
    assert (tmp_path / "int8.onnx").exists()


def test_a_slow_one_is_not_mended_and_its_graph_removed(
    search: Callable[..., EngineSearch], its_graph: Path, tmp_path: Path
) -> None:
    builder = Spoilt(its_graph, excluded=2)
    spoilt = int8(builder)
    (tmp_path / "int8.bin").write_bytes(b"weights of int8.xml, another candidate")
    first, second = search({"onnxruntime-fp32": 100, "onnxruntime-int8": 90}).run([BASELINE, spoilt], [])
    assert (tmp_path / "int8.bin").exists()
    assert (first.record.name, builder.asked) == ("onnxruntime-fp32", 0)
    assert second.record.graph is None
    assert second.record.drop > 50
    assert f"loses {second.record.drop:.2f} " in second.record.why
    assert not (tmp_path / "int8.onnx").exists()


def test_one_that_cannot_be_mended_is_not_chosen(search: Callable[..., EngineSearch], its_graph: Path) -> None:
    spoilt = int8(Spoilt(its_graph, excluded=None))
    first, _ = search({"onnxruntime-fp32": 100, "onnxruntime-int8": 300}).run([BASELINE, spoilt], [])
    assert first.record.name == "onnxruntime-fp32"


def test_a_candidate_that_cannot_be_made_says_why(search: Callable[..., EngineSearch]) -> None:
    def broken(path: Path) -> str:
        raise ValueError("no such\noperator")

    trials = search({"onnxruntime-fp32": 100}).run([BASELINE, Candidate("openvino", "int8", "int8.xml", broken)], [])
    assert trials[1].record.why == "ValueError: no such operator"
    assert trials[1].record.graph is None


def test_where_none_is_within_the_limit_the_numbers_are_named(search: Callable[..., EngineSearch]) -> None:
    with pytest.raises(ParityError, match=r"onnxruntime-fp32 loses -?0\.00 .* -1 are allowed"):
        replace(search({"onnxruntime-fp32": 100}), max_drop_pp=-1.0).run([BASELINE], [])


def test_fp32_that_answers_otherwise_is_refused(search: Callable[..., EngineSearch]) -> None:
    strict = search({"onnxruntime-fp32": 100, "openvino-fp32": 100})
    with pytest.raises(ParityError):
        replace(strict, reference=np.roll(strict.reference, 1, axis=1)).run([BASELINE], [])
