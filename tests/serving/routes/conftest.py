"""The service as a managed platform starts it in a container."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`container(*said, **environment)`: `docker run IMAGE serve …`, where the image's entry point is `lensmith`."""
    started: list[subprocess.Popen[str]] = []
    platforms = ("LENSMITH_", "AIP_", "SAGEMAKER_")
    others = {name: value for name, value in os.environ.items() if not name.startswith(platforms)}

    def run(*said: str, **environment: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lensmith", "serve", *said],
            env={**others, **{name: str(value) for name, value in environment.items()}},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
