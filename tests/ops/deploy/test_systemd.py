"""The units, as systemd itself reads them."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith import api

SERVICE = "lensmith@.service"


@pytest.fixture
def analyze(program: Callable[..., str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    path = program("systemd-analyze", "systemd")

    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([path, "--no-pager", *args], capture_output=True, text=True)

    return run


@pytest.fixture
def units(tmp_path: Path) -> Path:
    # systemd wants the program of a unit to exist.
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/lensmith").symlink_to(sys.executable)
    return api.deploy("systemd", out=tmp_path / "units", venv=venv, cpus=1.5, memory_mb=1024).folder


def test_systemd_finds_nothing_wrong_with_them(units: Path, analyze: Callable[..., Any]) -> None:
    for unit in (SERVICE, "lensmith.target"):
        checked = analyze("verify", "--man=no", str(units / unit))
        assert (checked.returncode, checked.stderr) == (0, "")


def test_little_is_left_that_a_broken_service_could_do(units: Path, analyze: Callable[..., Any]) -> None:
    rated = analyze("security", "--offline=true", str(units / SERVICE)).stdout
    match = re.search(r"exposure level for \S+ ([0-9.]+)", rated)
    assert match, rated
    assert float(match[1]) <= 1.5


def test_a_replica_has_time_to_finish_and_a_limit_of_memory(units: Path) -> None:
    text = (units / SERVICE).read_text()
    assert "TimeoutStopSec=25\n" in text  # 10 s of grace, and time to settle
    assert "MemoryMax=1024M\n" in text
    assert "CPUQuota=150%\n" in text
    assert "--port=%i --jwt-secret-file=%d/jwt-secret\n" in text


def test_the_target_starts_a_replica_for_each_port(tmp_path: Path) -> None:
    ports = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]
    folder = api.deploy("systemd", "/srv/mine", out=tmp_path / "units", replica=ports).folder
    wants = "Wants=lensmith@9001.service lensmith@9002.service lensmith@9003.service\n"
    assert wants in (folder / "lensmith.target").read_text()
    assert " serve /srv/mine --host" in (folder / SERVICE).read_text()
