"""A bundle that tests may change."""

import shutil
from pathlib import Path

import pytest

from lensmith.bundle.format import Bundle


@pytest.fixture
def copy(colour_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(colour_bundle.path, tmp_path / "copy"))
