"""Writing and reading bundles."""

import json
import random
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from lensmith.bundle.format import GOLDEN, GRAPH, MANIFEST, Bundle, Manifest, require_free, write
from lensmith.bundle.golden import Golden
from lensmith.errors import BundleError, OutputError
from lensmith.inference.engine import FakeEngine, open_engine


def test_what_is_sealed_is_read_back(colour_bundle: Bundle) -> None:
    assert Bundle.load(colour_bundle.path).manifest == colour_bundle.manifest
    assert set(colour_bundle.manifest.files) == {"model.onnx", "golden.npz"}


def test_only_a_bundle_is_replaced_and_only_if_it_shall_be(colour_bundle: Bundle, copy: Path, tmp_path: Path) -> None:
    require_free(tmp_path / "free", replace=False)
    photos = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", colour_bundle.path, "golden.npz"))
    packed = colour_bundle.pack(tmp_path / "packed.zip")
    for path, replaceable in ((copy, True), (packed, True), (photos, False), (tmp_path, False)):
        with pytest.raises(OutputError):
            require_free(path, replace=False)
        with nullcontext() if replaceable else pytest.raises(OutputError):
            require_free(path, replace=True)


def change(copy: Path, **fields: object) -> None:
    """Write bundle.json with other values in it."""
    content = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**content, **fields}))


@pytest.mark.parametrize(("version", "remedy"), [(99, "Upgrade lensmith"), (0, "lensmith export RUN")])
def test_another_schema_is_refused_with_both_versions_and_a_remedy(copy: Path, version: int, remedy: str) -> None:
    change(copy, schema_version=version)
    with pytest.raises(BundleError, match=rf"schema 1 .* schema {version}\b.*{remedy}"):
        Bundle.load(copy)


@pytest.mark.parametrize("version", ["2", True, 1.0, None])
def test_a_schema_version_that_is_no_whole_number_is_refused(copy: Path, version: object) -> None:
    change(copy, schema_version=version)
    with pytest.raises(BundleError, match=rf"schema_version .*{version!r} arrived"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("name", "problem"), [("../outside", "leads out"), ("", "no file name"), ("a\0b", "no file name")]
)
def test_a_file_name_that_leads_out_of_the_folder_is_refused_before_any_file_is_read(
    copy: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str
) -> None:
    monkeypatch.setattr("lensmith.bundle.format.sha256", lambda path: pytest.fail(f"{path} was read"))
    content = json.loads((copy / MANIFEST).read_text())
    change(copy, files={**content["files"], name: "0" * 64})
    with pytest.raises(BundleError, match=problem) as error:
        Bundle.load(copy)
    assert repr(name) in str(error.value)


def test_all_files_that_are_wrong_are_named(copy: Path) -> None:
    (copy / "golden.npz").unlink()
    (copy / GRAPH).write_bytes(b"")
    with pytest.raises(BundleError, match=r"golden\.npz is missing, model\.onnx has changed"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema_version": 1}', "[" * 10**6, " " * (32 << 20) + "{}"],
    ids=["empty", "cut", "list", "bare", "deep", "huge"],
)
def test_a_manifest_that_is_none_is_refused(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        Bundle.load(copy)


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_a_path_without_a_bundle_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json"):
        Bundle.load(tmp_path / path)


def test_golden_samples_damaged_anywhere_are_refused_or_read(tmp_path: Path) -> None:
    file, chance, refused = tmp_path / "golden.npz", random.Random(0), 0
    Golden((b"one", b"\x00\xff"), np.eye(2, dtype=np.float32)).save(file, ("cat", "dog"))
    assert Golden.read(file, ("cat", "dog")).images == (b"one", b"\x00\xff")
    whole = file.read_bytes()
    for _ in range(100):
        content = bytearray(whole)
        content[chance.randrange(len(content))] = chance.randrange(256)
        file.write_bytes(content)
        try:
            assert Golden.read(file, ("cat", "dog")).probabilities.shape == (2, 2)
        except BundleError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 3), ()])
def test_golden_answers_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    right, other = np.eye(2, dtype=np.float32), np.zeros(shape, np.float32)
    for number, golden in enumerate((Golden((b"1", b"2"), other), Golden((b"1", b"2"), right, {"openvino": other}))):
        golden.save(tmp_path / f"{number}.npz", ("cat", "dog"))
        with pytest.raises(BundleError, match=rf"{number}\.npz"):
            Golden.read(tmp_path / f"{number}.npz", ("cat", "dog"))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda batch: np.zeros((len(batch), 3), np.float32), "differs by"),
        (lambda batch: np.zeros((len(batch), 4), np.float32), "shape"),
        (lambda batch: np.full((len(batch), 3), np.nan, np.float32), "not numbers"),
    ],
)
def test_an_engine_that_answers_otherwise_is_refused(colour_bundle: Bundle, monkeypatch, answer, problem: str) -> None:
    monkeypatch.setattr("lensmith.inference.engine.open_graph", lambda *args: FakeEngine(answer))
    with pytest.raises(BundleError, match=problem):
        open_engine(colour_bundle)


@pytest.mark.parametrize("labels", [["red", "green", "blue"], ["blue", "green", "green"], ["blue", "green"]])
def test_labels_that_were_changed_are_refused(copy: Path, labels: list[str]) -> None:
    change(copy, labels=labels)
    with pytest.raises(BundleError, match="labels"):
        open_engine(Bundle.load(copy))


def test_a_graph_that_no_hash_covers_is_refused(copy: Path) -> None:
    change(copy, files={})
    with pytest.raises(BundleError, match="has changed"):
        Bundle.load(copy)


def test_a_bundle_is_written_whole_or_not_at_all(colour_bundle: Bundle, tmp_path: Path) -> None:
    def build(folder: Path) -> Manifest:
        for file in (GRAPH, GOLDEN):
            shutil.copy(colour_bundle.path / file, folder)
        return colour_bundle.manifest

    def fail(folder: Path) -> Manifest:
        build(folder)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "bundle", fail)
    assert not list(tmp_path.iterdir())
    assert write(tmp_path / "bundle", build).manifest.files == Bundle.load(tmp_path / "bundle").manifest.files
    with pytest.raises(OutputError):
        write(tmp_path / "bundle", build)


@pytest.mark.parametrize("name", ["bundle.onnx", "bundle.TGZ", "bundle.tar.gz", "bundle.ZIP"])
def test_a_bundle_is_not_named_like_a_file_that_it_is_not(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"ends in \.zip"):
        require_free(tmp_path / name, replace=False)
