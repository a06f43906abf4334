"""Workspaces with a pipeline's file, images in parts, and a registry of their own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from fixtures.bundles import make_bundle
from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, seal

COLOURS = ("blue", "green", "red")
NO_LATENCY = {"latency_ratio": None}
"""Settings of a gate that measures no latency, which takes seconds."""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with its own cache and registry."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LENSMITH_TRACKING_URI", f"sqlite:///{tmp_path}/registry.db")
    return tmp_path


@pytest.fixture
def parted(many_colours: Path) -> Callable[..., Path]:
    """`parted(root, turn=0)`: train, val, test folders; with turn=1 each training image lies under the next class."""

    def make(root: Path, turn: int = 0) -> Path:
        for number, label in enumerate(COLOURS):
            learnt = COLOURS[(number + turn) % len(COLOURS)]
            for place, file in enumerate(sorted((many_colours / label).iterdir())):
                part = "train" if place < 10 else "val" if place < 14 else "test"
                folder = root / part / (label if part == "test" else learnt)
                folder.mkdir(parents=True, exist_ok=True)
                Image.open(file).save(folder / f"{label}-{place:03d}.png")
        return root

    return make


@pytest.fixture
def written(workspace: Path, quick_settings: dict[str, Any]) -> Callable[..., Path]:
    """`written(**sections)`: a pipeline.yaml in the workspace, quick and with all stages on by default."""

    def write(**sections: Any) -> Path:
        train = {**quick_settings, "epochs": 2, "trainable_stages": 0, "head_solver": "lbfgs"}
        content = {"name": "colours", "data": "data", "train": train, "export": False, "gate": NO_LATENCY, **sections}
        file = workspace / "pipeline.yaml"
        file.write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not ...}))
        return file

    return write


@pytest.fixture
def relabel(colour_bundle: Bundle, tmp_path: Path) -> Callable[..., Bundle]:
    """`relabel(a, b, c)`: the bundle that knows the colours, which calls blue, green and red so."""

    def make(*labels: str) -> Bundle:
        folder = tmp_path / "-".join(labels)
        folder.mkdir()
        shutil.copy(colour_bundle.path / GRAPH, folder)
        colour_bundle.golden().save(folder / GOLDEN, labels)
        return seal(folder, colour_bundle.manifest.model_copy(update={"labels": labels}))

    return make


@pytest.fixture(scope="session")
def two_class_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that knows green and red alone, by their channels."""
    return make_bundle(tmp_path_factory.mktemp("two") / "bundle", ("green", "red"))
