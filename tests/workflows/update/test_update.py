"""Two pictures more: two forward passes, the same held-out pictures, a page, one question, and the new model in use."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.pictures import COLOURS, coloured_picture
from lensmith import api
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.core.files import sha256
from lensmith.errors import BundleError, RegistryError, SettingsError
from lensmith.training.run_dir.run import Run
from lensmith.workflows.update.promote import replace_bundle
from lensmith.workflows.update.run import UpdateResult


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LENSMITH_TRACKING_URI", f"sqlite:///{tmp_path}/registry.db")
    return tmp_path


def add_two(data: Path) -> None:
    for number, label in enumerate(("red", "blue")):
        coloured_picture(COLOURS[label], seed=2000 + number).save(data / label / f"new-{number}.png")


@pytest.mark.slow
def test_two_pictures_more(
    place: Path, many_colours: Path, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lensmith.workflows.pipeline.gate.measure_latency", lambda paths, files: [[1.0, 1.0]] * len(paths)
    )
    data = Path(shutil.copytree(many_colours, place / "data"))
    quick |= {"epochs": 2, "trainable_stages": 0, "head_solver": "lbfgs", "cache_gb": 1, "loader_workers": 0}
    first = api.train(data, **quick, out=place / "first")
    in_use = Path(shutil.copytree(first.bundle, place / "in-use"))
    held_out = {sample.path for sample in Run.open(first.run).images.part("test")}
    add_two(data)
    asked: list[UpdateResult] = []

    def answer(result: UpdateResult) -> bool:
        asked.append(result)
        return len(asked) > 1

    made = api.update(data, bundle=in_use, confirm=answer)
    assert made.new_images == 2
    images = Run.open(made.bundle.parent).images
    new = [str(sample.part) for sample in images.samples if "new-" in sample.path]
    events = Run.open(made.bundle.parent).read_events("features")
    # Exact features of the training images are the probe's; here all of them are in it.
    assert made.computed_features == made.labels.computed_features + sum(
        {"train": 1 if events[0]["exact"] else 2}.get(part, 1) for part in new if part != "test"
    )
    assert {
        images.file(s).resolve().relative_to(data).as_posix() for s in images.part("test") if "new" not in s.path
    } == held_out
    assert made.compared >= len(held_out)
    assert not made.is_promoted
    assert sha256(in_use / MANIFEST) == sha256(first.bundle / MANIFEST)
    assert f"{made.compared:,} held-out pictures" in made.page.read_text()

    again = api.update(data, bundle=in_use, confirm=answer)  # yes
    assert again.is_promoted
    assert again.bundle == made.bundle
    assert Bundle.load(in_use).manifest.version == Bundle.load(made.bundle).manifest.version
    (replaced,) = Path("runs/updates/data/replaced").iterdir()
    assert sha256(replaced / MANIFEST) == sha256(first.bundle / MANIFEST)
    assert api.update(data, bundle=in_use, yes=True).new_images == 0

    registry = api.Registry()
    registry.push(first.bundle, "colours", alias="champion")
    by_name = api.update(data, model="colours", yes=True)
    assert by_name.is_promoted
    assert registry.version("colours@champion").version == "2"
    assert registry.version("colours@previous").version == "1"


def test_a_model_without_a_champion_is_an_error_with_the_way_out(place: Path, many_colours: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        api.update(many_colours, model="flowers")
    assert "registry push" in caught.value.remedy


@pytest.mark.parametrize("given", [{}, {"model": "flowers", "bundle": "in-use"}])
def test_one_model_is_named(place: Path, many_colours: Path, given: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        api.update(many_colours, **given)  # type: ignore[arg-type]


def test_a_bundle_that_records_no_training_cannot_be_trained_again(
    place: Path, many_colours: Path, colour_bundle: Bundle
) -> None:
    with pytest.raises(BundleError) as caught:
        api.update(many_colours, bundle=colour_bundle.path)
    assert "settings of its training" in caught.value.expected
    assert not Path("runs").exists()


def test_a_bundle_that_others_replaced_meanwhile_stays(place: Path, remake: Callable[..., Bundle]) -> None:
    compared, in_use, successor = remake("compared"), remake("in-use", version="7"), remake("successor", version="8")
    with pytest.raises(BundleError):
        replace_bundle(in_use.path, successor.path, compared, place / "out")
    assert Bundle.load(in_use.path).manifest.version == "7"


def test_a_bundle_is_replaced_and_the_one_before_is_kept(place: Path, remake: Callable[..., Bundle]) -> None:
    in_use, successor = remake("in-use", version="7/a"), remake("successor", version="8")
    replace_bundle(in_use.path, successor.path, in_use, place / "out")
    assert Bundle.load(in_use.path).manifest.version == "8"
    (before,) = (place / "out/replaced").iterdir()
    assert Bundle.load(before).manifest.version == "7/a"
    assert "already" in replace_bundle(in_use.path, successor.path, Bundle.load(in_use.path), place / "out")
