"""The installed package in a fresh virtual environment: small without torch, and able to answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lensmith.bundle import Bundle
from lensmith.errors import EXTRA_OF_PACKAGE

ROOT = Path(__file__).parents[1]
LIMIT_BYTES = 350_000_000


@pytest.fixture(scope="module")
def serve_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pip install 'lensmith[serve]'` with the constraints, from a wheel built here; the environment's folder."""
    home = tmp_path_factory.mktemp("serve-only")
    constraints = ["--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    subprocess.run([str(home / "bin/pip"), "install", *constraints, f"{ROOT}[serve]"], check=True)
    return home


@pytest.mark.slow
def test_a_serve_only_install_is_small(serve_only: Path) -> None:
    files = [file for file in serve_only.rglob("*") if file.is_file() and not file.is_symlink()]
    assert sum(file.stat().st_size for file in files) <= LIMIT_BYTES
    names = {folder.name for folder in serve_only.glob("lib/python*/site-packages/*")}
    assert not names & {"torch", "timm", "sklearn", "matplotlib"}


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
from lensmith.serve.process import start_service
with start_service(sys.argv[1]) as service:
    body = open(sys.argv[2], "rb").read()
    request = urllib.request.Request(service.url + "/predict", body, {"Content-Type": "image/jpeg"})
    print(urllib.request.urlopen(request).read().decode())
"""
    command = [str(serve_only / "bin/python"), "-c", served, str(colour_bundle.path), picture]
    answered = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(answered.stdout)["label"] == "red"


@pytest.mark.slow
def test_a_verb_whose_packages_are_missing_says_how_to_get_them(serve_only: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [str(serve_only / "bin/lensmith"), "train", "photos"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "pip install 'lensmith[" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_package_of_the_table_belongs_to_its_extra() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distribution = {"sklearn": "scikit-learn", "prometheus_client": "prometheus-client"}
    for package, extra in EXTRA_OF_PACKAGE.items():
        name = distribution.get(package, package).replace("_", "-")
        indirect = {"starlette", "scipy"}  # come with fastapi and scikit-learn
        assert package in indirect or any(wanted.startswith(name) for wanted in extras[extra]), package
