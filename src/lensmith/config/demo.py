"""Settings of `lensmith demo`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lensmith.config.base import Settings


class DemoSettings(Settings):
    """`lensmith demo`."""

    verb = "demo"

    out: Path = Field(Path("runs/demo"), description="Folder for data, run and report; a second demo reuses it.")
    train_images: int = Field(6000, ge=100, description="Number of training images.")
    test_images: int = Field(2000, ge=20, description="Number of test images.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of all random numbers.")
    port: int = Field(0, ge=0, le=65535, description="Port of the service; 0 picks a free one.")
    keep_serving: bool = Field(False, description="Leave the service running at the end.")
