"""Writing and reading bundles."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lensmith.bundle import MANIFEST, Bundle, Golden, Manifest, require_free, write
from lensmith.engine import FakeEngine, open_engine
from lensmith.errors import BundleError, OutputError


@pytest.fixture
def copy(colour_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(colour_bundle.path, tmp_path / "copy"))


def test_what_is_written_is_read_back(colour_bundle: Bundle) -> None:
    assert Bundle.load(colour_bundle.path).manifest == colour_bundle.manifest
    assert set(colour_bundle.manifest.files) == {"model.onnx", "golden.npz"}


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> Manifest:
        (folder / "model.onnx").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write(tmp_path / "bundle", build)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_path_is_refused_and_kept(colour_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for replace in (False, True):
        with pytest.raises(OutputError, match="Something is there"):
            write(tmp_path / "photos", lambda folder: colour_bundle.manifest, replace=replace)
    assert (tmp_path / "photos").exists()


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.load(copy)


def test_another_schema_is_refused(copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(BundleError, match="schema 99"):
        Bundle.load(copy)


def test_a_field_of_a_later_lensmith_is_read_over(copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**content, "invented_later": 1}))
    assert Bundle.load(copy).labels == ("blue", "green", "red")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}'])
def test_a_manifest_that_is_none_is_refused(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        Bundle.load(copy)


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_a_path_without_a_bundle_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json"):
        Bundle.load(tmp_path / path)


def test_golden_samples_survive_a_round_trip(tmp_path: Path) -> None:
    golden = Golden((b"one", b"\x00\xff"), np.array([[0.25, 0.75], [1, 0]], dtype=np.float32))
    golden.save(tmp_path / "golden.npz", ("cat", "dog"))
    read = Golden.read(tmp_path / "golden.npz", ("cat", "dog"))
    assert read.images == golden.images
    np.testing.assert_array_equal(read.probabilities, golden.probabilities)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda batch: np.zeros((len(batch), 3), np.float32), "differs by"),
        (lambda batch: np.zeros((len(batch), 4), np.float32), "shape"),
        (lambda batch: np.full((len(batch), 3), np.nan, np.float32), "not numbers"),
    ],
)
def test_an_engine_that_answers_otherwise_is_refused(colour_bundle: Bundle, monkeypatch, answer, problem: str) -> None:
    monkeypatch.setattr("lensmith.engine.open_graph", lambda *args: FakeEngine(answer))
    with pytest.raises(BundleError, match=problem):
        open_engine(colour_bundle)


@pytest.mark.parametrize("labels", [["red", "green", "blue"], ["blue", "green", "green"], ["blue", "green"]])
def test_labels_that_were_changed_are_refused(copy: Path, labels: list[str]) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**content, "labels": labels}))
    with pytest.raises(BundleError, match="labels"):
        open_engine(Bundle.load(copy))


def test_a_graph_that_no_hash_covers_is_refused(copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**content, "files": {}}))
    with pytest.raises(BundleError, match="has changed"):
        Bundle.load(copy)


def test_a_folder_zipped_by_hand_is_a_bundle(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    packed = shutil.make_archive(str(tmp_path / "hand"), "zip", copy.parent, copy.name)
    assert Bundle.load(packed).labels == ("blue", "green", "red")


def test_a_damaged_zip_is_refused_and_leaves_no_rubbish(
    colour_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    packed = colour_bundle.pack(tmp_path / "colours.zip")
    content = bytearray(packed.read_bytes())
    content[200] ^= 0xFF
    packed.write_bytes(content)
    with pytest.raises(BundleError, match=r"colours\.zip"):
        Bundle.load(packed)
    assert list((tmp_path / "cache" / "bundles").iterdir()) == []


def test_a_zip_of_something_else_is_not_replaced(colour_bundle: Bundle, tmp_path: Path) -> None:
    photos = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", colour_bundle.path, "golden.npz"))
    with pytest.raises(OutputError):
        require_free(photos, replace=True)
