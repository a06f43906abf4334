"""Settings of what makes image folders."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import Ratio


class FetchSettings(Settings):
    """`lensmith data fetch`."""

    verb = "fetch"
    positional = ("name", "folder")

    name: str = Field(description="fashion-mnist, cifar10, flowers102, pets or digits")
    folder: Path = Field(description="Where the image folder goes.")
    max_train: int | None = Field(
        None, ge=1, description="At most so many training images, drawn evenly from the classes."
    )
    max_test: int | None = Field(None, ge=1, description="At most so many test images.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the drawing.")


class SplitSettings(Settings):
    """`lensmith data split`."""

    verb = "split"
    positional = ("folder",)

    folder: Path = Field(description="Image folder, or a CSV of path,label.")
    ratio: Ratio = Field((5, 3, 2), description="train:val:test")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the shuffle.")
    out: Path | None = Field(None, description="Manifest to write; FOLDER/splits.csv by default.")
    overwrite: bool = Field(False, description="Replace an older manifest.")
