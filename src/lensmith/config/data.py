"""Settings of `lensmith data fetch` and `lensmith data split`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import Ratio


class FetchSettings(Settings):
    """`lensmith data fetch`."""

    verb = "fetch"
    positional = ("name", "folder")

    name: str = Field(description="Data set: fashion-mnist, cifar10, flowers102, pets or digits.")
    folder: Path = Field(description="Image folder to write.")
    max_train: int | None = Field(None, ge=1, description="Most training images, drawn evenly from the classes.")
    max_test: int | None = Field(None, ge=1, description="Most test images, drawn evenly from the classes.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the draw.")


class SplitSettings(Settings):
    """`lensmith data split`."""

    verb = "split"
    positional = ("folder",)

    folder: Path = Field(description="Image folder, or a CSV of path,label.")
    ratio: Ratio = Field((5, 3, 2), description="train:val:test")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the shuffle.")
    out: Path | None = Field(None, description="Manifest to write; FOLDER/splits.csv by default.")
    overwrite: bool = Field(False, description="Replace an older manifest.")
