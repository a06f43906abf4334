"""Features are what the frozen layers make of the image, whichever engine made them, and never stale."""

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lensmith.config import TrainSettings
from lensmith.core.array_cache import ArrayCache
from lensmith.data.image_set import Sample
from lensmith.data.split import prepare
from lensmith.imaging.preprocessing import preprocess
from lensmith.training.dataloading import augment
from lensmith.training.feature_cache import backends, features, split_model
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.feature_cache.features import FeatureExtractor, NoFeaturesError, View
from lensmith.training.models import backbone
from lensmith.training.models.backbone import Network

CPU = torch.device("cpu")


class Bench:
    """A small frozen network and the colours, in a store of their own."""

    def __init__(self, quick: dict[str, Any], data: Path, root: Path) -> None:
        self.settings = TrainSettings.model_validate({**quick, "data": data, "augment": "standard"})
        self.images = prepare(data, self.settings.split, 0)
        self.samples = self.images.part("train")
        torch.manual_seed(0)
        self.network: Network = backbone.build(self.settings, 3)
        self.network.freeze(0, statistics=True)
        self.store: ArrayCache | None = ArrayCache(10**9, root)
        self.how = self.network.preprocessing
        self.computed = self.watched = 0

    def features(self, number: int = 0, engine: str = "torch fp32", seed: int = 0, *, exact: bool = False) -> Features:
        found = split_model.find_split_point(self.network, 0, self.how.image_size)
        assert found is not None
        level = augment.build(self.settings, self.how.image_size)
        self.watched = 0

        def watch(done: int, total: int) -> None:
            self.watched = done

        with FeatureExtractor(self.network.model, found, self.how, self.settings, CPU, self.store, engine) as extractor:
            rows = extractor.features(self.images, self.samples, View(number, level, seed), watch, exact)
        self.computed = rows.computed
        return rows


@pytest.fixture
def bench(quick: dict[str, Any], colours: Path, tmp_path: Path) -> Bench:
    return Bench(quick, colours, tmp_path / "kept")


def test_they_are_what_the_network_makes_of_the_image(bench: Bench) -> None:
    rows = bench.features()
    batch = np.stack([preprocess(bench.images.file(sample).read_bytes(), bench.how) for sample in bench.samples])
    model = bench.network.model.eval()
    with torch.no_grad():
        right = model.forward_head(model.forward_features(torch.from_numpy(batch)), pre_logits=True).numpy()
    assert rows.values.dtype == np.float16
    assert np.allclose(rows.values, right, rtol=2e-3, atol=1e-3 * np.abs(right).max())


def test_exact_ones_are_fp32_whatever_the_engine_rounds_to(bench: Bench) -> None:
    rounded, rows = bench.features(engine="torch bf16"), bench.features(engine="torch bf16", exact=True)
    batch = np.stack([preprocess(bench.images.file(sample).read_bytes(), bench.how) for sample in bench.samples])
    model = bench.network.model.eval()
    with torch.no_grad():
        right = model.forward_head(model.forward_features(torch.from_numpy(batch)), pre_logits=True).numpy()
    assert rows.values.dtype == np.float32
    assert np.allclose(rows.values, right, rtol=1e-4, atol=1e-5 * np.abs(right).max())
    assert np.abs(rounded.values - right).max() > 100 * np.abs(rows.values - right).max()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino fp32", "onnxruntime fp32"])
def test_other_engines_compute_the_same(bench: Bench, engine: str) -> None:
    ours, theirs = bench.features().values.astype(np.float32), bench.features(engine=engine).values.astype(np.float32)
    assert np.allclose(ours, theirs, rtol=1e-2, atol=2e-3 * np.abs(ours).max())


@pytest.mark.parametrize(("model", "size"), [("test_resnet", 32), ("test_convnext", 32), ("test_vit", 160)])
def test_nothing_is_dropped_from_them(
    quick: dict[str, Any], colours: Path, tmp_path: Path, model: str, size: int
) -> None:
    made = Bench({**quick, "model": model, "image_size": size, "dropout": 0.5}, colours, tmp_path / "kept")
    modes = [module.training for module in made.network.model.modules()]
    made.store = None
    assert np.array_equal(made.features().values, made.features().values)
    assert [module.training for module in made.network.model.modules()] == modes


def other_weights(bench: Bench) -> None:
    with torch.no_grad():
        bench.network.model.conv1[0].weight[0, 0, 0, 0] += 1e-3


def other_statistics(bench: Bench) -> None:
    bench.network.model.bn1.running_mean[0] += 1e-3


def other_size(bench: Bench) -> None:
    bench.how = replace(bench.how, image_size=40)


def other_mean(bench: Bench) -> None:
    bench.how = replace(bench.how, mean=(0.4, 0.5, 0.5))


def another_file_of_the_same_size_and_date(bench: Bench) -> None:
    file = bench.images.file(next(one for one in bench.samples if one.path.endswith(".png")))
    before, inverted = file.stat(), io.BytesIO()
    Image.fromarray(255 - np.asarray(Image.open(file))).save(inverted, "PNG")
    file.write_bytes(inverted.getvalue()[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (other_weights, 12), (other_statistics, 12), (other_size, 12), (other_mean, 12),
        (another_file_of_the_same_size_and_date, 1),
    ],
)  # fmt: skip
def test_a_stale_row_is_never_used(bench: Bench, change: Callable[[Bench], None], stale: int) -> None:
    bench.features()
    change(bench)
    found = bench.features()
    assert (bench.computed, bench.watched) == (stale, len(bench.samples))
    bench.store = None
    assert np.array_equal(found.values, bench.features().values, equal_nan=True)


def two_files_more(bench: Bench) -> None:
    for name in ("blue/0.png", "red/zz.png"):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(bench.images.root / name)
    bench.samples = (Sample("blue/0.png", 0, "train"), *bench.samples, Sample("red/zz.png", 2, "train"))


def another_order(bench: Bench) -> None:
    bench.samples = bench.samples[::-1]


def other_labels(bench: Bench) -> None:
    bench.samples = tuple(replace(one, label=(one.label + 1) % 3) for one in bench.samples)


def fewer(bench: Bench) -> None:
    bench.samples = bench.samples[1::2]


def renamed_and_moved(bench: Bench) -> None:
    for number, one in enumerate(bench.samples):
        bench.images.file(one).rename(bench.images.root / f"{number}.of-any-kind")
    bench.samples = tuple(replace(one, path=f"{number}.of-any-kind") for number, one in enumerate(bench.samples))


def a_copy_of_the_folder(bench: Bench) -> None:
    copied = bench.images.root.with_name("copied")
    shutil.copytree(bench.images.root, copied)
    bench.images = replace(bench.images, root=copied)


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize(
    ("change", "new"),
    [
        (two_files_more, 2), (another_order, 0), (other_labels, 0), (fewer, 0), (renamed_and_moved, 0),
        (a_copy_of_the_folder, 0),
    ],
)  # fmt: skip
def test_a_content_is_computed_once_for_each_view(
    bench: Bench, change: Callable[[Bench], None], new: int, number: int
) -> None:
    bench.features(number)
    change(bench)
    found = bench.features(number)
    assert bench.computed == new
    bench.store = None
    assert np.allclose(found.values, bench.features(number).values, rtol=2e-3, atol=1e-3)


def test_copies_of_an_image_are_augmented_apart(bench: Bench) -> None:
    first = bench.samples[0]
    (bench.images.root / "copy.png").write_bytes(bench.images.file(first).read_bytes())
    bench.features(1)
    bench.samples = (*bench.samples, replace(first, path="copy.png"))
    rows = bench.features(1)
    assert bench.computed == 1
    assert not np.array_equal(rows.values[0], rows.values[-1])


def test_exact_rows_serve_for_rounded_ones_of_the_same_engine(bench: Bench) -> None:
    right = bench.features().values
    bench.store = ArrayCache(10**9, bench.store.root.with_name("other"))  # type: ignore[union-attr]
    bench.features(exact=True)
    assert np.array_equal(bench.features().values, right)
    assert bench.computed == 0
    bench.features(engine="torch bf16")
    assert bench.computed == len(bench.samples)


def test_views_seeds_and_engines_are_apart(bench: Bench) -> None:
    seen = [bench.features(number) for number in (0, 1, 2)]
    seen += [bench.features(1, seed=1), bench.features(engine="torch bf16")]
    for number, one in enumerate(seen):
        assert not any(np.array_equal(one.values, other.values) for other in seen[:number])
    bench.features(1)
    assert bench.computed == 0


def test_an_unreadable_image_is_a_row_of_nothing_with_its_reason_also_the_next_time(bench: Bench) -> None:
    bench.images.file(bench.samples[3]).write_bytes(b"broken")
    for computed in (len(bench.samples), 0):
        rows = bench.features()
        assert bench.computed == computed
        assert list(rows.unreadable) == [3]
        assert "decoded" in rows.unreadable[3]
        assert np.isnan(rows.values[3]).all()
        assert not np.isnan(np.delete(rows.values, 3, axis=0)).any()


def test_without_room_on_disk_they_are_kept_in_memory(bench: Bench) -> None:
    right = bench.features().values
    bench.store = ArrayCache(10)
    assert np.array_equal(bench.features().values, right)


def test_without_room_anywhere_there_are_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.store = ArrayCache(10)
    monkeypatch.setattr(features, "_MEMORY_SHARE", 0.0)
    with pytest.raises(NoFeaturesError, match="budget"):
        bench.features()


@pytest.mark.parametrize(("number", "reason"), [(np.nan, "not numbers"), (1e5, "float16")])
def test_numbers_that_float16_cannot_hold_are_neither_kept_nor_taken_for_unreadable_images(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: float, reason: str
) -> None:
    wrong = np.full((features.BATCH, 96), number, dtype=np.float32)
    monkeypatch.setattr(backends.FrozenTrunk, "open", lambda self, name: lambda batch: wrong[: len(batch)])
    with pytest.raises(NoFeaturesError, match=reason):
        bench.features()


def test_work_that_is_stopped_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise StopError

    monkeypatch.setattr(features, "BLOCK", 4)
    monkeypatch.setattr(features, "BATCH", 4)
    plain = FeatureExtractor.features
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractor, "features", lambda *given: plain(*given[:4], stop))
        with pytest.raises(StopError):
            bench.features()
    decoded: list[int] = []

    class Counting(features.ImageDataset):
        def __getitem__(self, item: Any) -> Any:
            decoded.append(item.sample)
            return super().__getitem__(item)

    monkeypatch.setattr(features, "ImageDataset", Counting)
    found = bench.features().values
    assert 0 < len(decoded) < len(bench.samples)
    bench.store = None
    assert np.array_equal(found, bench.features().values)


def test_the_engine_is_measured_only_where_torch_would_take_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"torch fp32": 100.0, "torch bf16": 150.0, "openvino fp32": 400.0, "openvino bf16": 0.0}
    asked: list[list[str]] = []
    monkeypatch.setattr(backends, "available_backends", lambda device: list(speeds))
    monkeypatch.setattr(backends, "memoized_on_disk", lambda what, depends_on, measure: measure())
    monkeypatch.setattr(
        backends.FrozenTrunk,
        "speeds",
        lambda self, names: (asked.append(names), {name: speeds[name] for name in names})[1],
    )
    prefix = backends.FrozenTrunk(bench.network.model, 32, CPU)
    assert prefix.fastest_backend({}, images=500) == "torch bf16"
    assert prefix.fastest_backend({}, images=50_000) == "openvino fp32"
    assert asked == [["torch fp32", "torch bf16"]] * 2 + [["openvino fp32", "openvino bf16"]]


def test_an_engine_with_wrong_features_is_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = backends.FrozenTrunk.open

    def broken(self: Any, name: str) -> Any:
        run = plain(self, "torch fp32")
        return run if name == "torch fp32" else lambda batch: 1.5 * run(batch)

    monkeypatch.setattr(backends.FrozenTrunk, "open", broken)
    with backends.FrozenTrunk(bench.network.model.eval(), 32, CPU) as prefix:
        found = prefix.speeds(["torch fp32", "openvino fp32"])
    assert found["torch fp32"] > 0
    assert found["openvino fp32"] == 0


def test_afterwards_torch_has_all_its_threads_again(bench: Bench) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = split_model.find_split_point(bench.network, 0, 32)
        assert found is not None
        with backends.FrozenTrunk(found.frozen_trunk(bench.network.model), 32, CPU) as prefix:
            prefix.speeds(["torch fp32"])
        assert torch.get_num_threads() == 2
        bench.features()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
