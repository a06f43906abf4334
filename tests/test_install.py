"""The installed package in a fresh virtual environment: small without torch, and able to answer."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lensmith import api
from lensmith.bundle.format import Bundle
from lensmith.core.version import __version__
from lensmith.errors import EXTRA_OF_PACKAGE

ROOT = Path(__file__).parents[1]
LIMIT_BYTES = 350_000_000


@pytest.fixture(scope="module")
def serve_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image of `lensmith deploy docker` holds: its own steps, run here with a wheel; the environment's folder.

    No pip is in it, and no packages are but those of the extra `serve` with the constraints.
    """
    home = tmp_path_factory.mktemp("serve-only")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={home}", str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = home.glob("*.whl")
    folder = api.deploy("docker", out=home / "context", wheel=wheel, venv=home / "venv").folder
    lines = (folder / "Dockerfile").read_text().replace("\\\n", "")
    steps = re.findall(r"^RUN (.*)$", lines, re.MULTILINE)
    assert len(steps) == 1
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-ec", steps[0]], cwd=folder, env={**os.environ, "PATH": path}, check=True)
    return home / "venv"


@pytest.mark.slow
def test_a_serve_only_install_is_small(serve_only: Path) -> None:
    files = [file for file in serve_only.rglob("*") if file.is_file() and not file.is_symlink()]
    assert sum(file.stat().st_size for file in files) <= LIMIT_BYTES
    names = {folder.name for folder in serve_only.glob("lib/python*/site-packages/*")}
    assert not names & {"torch", "timm", "sklearn", "matplotlib", "pip"}
    probe = "import importlib.util as u; print([n for n in ('torch', 'timm', 'onnx') if u.find_spec(n)])"
    found = subprocess.run([str(serve_only / "bin/python"), "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_it_predicts_and_serves(serve_only: Path, colour_bundle: Bundle, colours: Path, tmp_path: Path) -> None:
    lensmith = str(serve_only / "bin/lensmith")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    picture = str(colours / "red" / "001.jpg")
    command = [lensmith, "predict", str(colour_bundle.path), picture, "--json"]
    answered = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(answered.stdout)["predictions"][0]["label"] == "red"
    served = """
import urllib.request, sys
from lensmith.serving.child_process import start_service
with start_service(sys.argv[1]) as service:
    body = open(sys.argv[2], "rb").read()
    request = urllib.request.Request(service.url + "/predict", body, {"Content-Type": "image/jpeg"})
    print(urllib.request.urlopen(request).read().decode())
"""
    command = [str(serve_only / "bin/python"), "-c", served, str(colour_bundle.path), picture]
    answered = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(answered.stdout)["label"] == "red"


@pytest.mark.slow
def test_it_writes_deployments_with_the_versions_it_was_tested_with(serve_only: Path, tmp_path: Path) -> None:
    command = [str(serve_only / "bin/lensmith"), "deploy", "compose", "--json"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    written = (tmp_path / "deploy/compose/constraints.txt").read_text()
    assert written == (ROOT / "constraints.txt").read_text()


@pytest.mark.slow
def test_a_verb_whose_packages_are_missing_says_how_to_get_them(serve_only: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [str(serve_only / "bin/lensmith"), "train", "photos"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "pip install 'lensmith[" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_tag_names_the_version_and_the_changelog_has_it() -> None:
    command = ["git", "-C", str(ROOT), "tag", "--points-at", "HEAD", "v*"]
    found = subprocess.run(command, capture_output=True, text=True) if shutil.which("git") else None
    if found is None or found.returncode or not found.stdout.strip():
        pytest.skip("no commit that is tagged as a release")
    assert found.stdout.split() == [f"v{__version__}"]
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_package_of_the_table_belongs_to_its_extra() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distribution = {"sklearn": "scikit-learn", "prometheus_client": "prometheus-client", "jwt": "pyjwt[crypto]"}
    for package, extra in EXTRA_OF_PACKAGE.items():
        name = distribution.get(package, package).replace("_", "-")
        indirect = {"starlette", "scipy", "cryptography"}  # come with fastapi, scikit-learn and pyjwt[crypto]
        assert package in indirect or any(wanted.startswith(name) for wanted in extras[extra]), package
