"""Every verb works where Python lacks what Linux has: fcntl, SIGHUP, /proc, uvloop, forks and more."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from lensmith.bundle.format import Bundle

OTHER_SYSTEM = Path(__file__).parents[1] / "fixtures" / "other_system.py"

Verb = Callable[..., str]

IMPORT_ALL = """
import importlib, pkgutil, sys
import lensmith
assert sys.modules["fcntl"] is sys.modules["resource"] is None
for module in pkgutil.walk_packages(lensmith.__path__, "lensmith."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("other")
    (folder / "sitecustomize.py").write_text(OTHER_SYSTEM.read_text(encoding="utf-8"), encoding="utf-8")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LENSMITH_CACHE": str(folder / "cache")}


@pytest.fixture
def verb(environment: dict[str, str], tmp_path: Path) -> Verb:
    """Runs a verb in the test's folder, and returns what it printed."""

    def run(*args: object) -> str:
        command = [sys.executable, "-m", "lensmith", *map(str, args)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_every_module_can_be_imported(environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", IMPORT_ALL], env=environment, check=True, timeout=240)


def test_from_images_to_answers(verb: Verb, shared_colours: Path, tmp_path: Path) -> None:
    assert json.loads(verb("data", "check", shared_colours, "--json"))["usable"] == 24
    verb("data", "split", shared_colours, "--out", "parts.csv")
    settings = "--model test_resnet --no-pretrained --image-size 32 --epochs 2 --batch-size 4 --feature-cache never"
    verb("train", "parts.csv", *settings.split(), "--loader-workers", 1, "--out", "run")
    verb("export", "run", "--formats", "torchscript", "--out", "bundle")
    verb("evaluate", "bundle", shared_colours, "--part", "all", "--out", "evaluation")
    verb("predict", "bundle", shared_colours, "--out", "answers.csv")
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 25
    for args in (["bundle", "show", "bundle"], ["cache", "list"], ["doctor"], ["models"], ["recipe", "show", "fast"]):
        verb(*args)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_answers_measures_and_stops(
    environment: dict[str, str], colour_bundle: Bundle, shared_colours: Path, workers: int
) -> None:
    image = next((shared_colours / "red").iterdir()).read_bytes()
    command = [sys.executable, "-m", "lensmith", "serve", str(colour_bundle.path), "--port", "0"]
    with subprocess.Popen(
        [*command, f"--workers={workers}"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            for _ in range(4):
                request = urllib.request.Request(f"{url}/predict", image, {"content-type": "application/octet-stream"})
                assert json.load(urllib.request.urlopen(request, timeout=30))["label"] == "red"
            metrics = urllib.request.urlopen(f"{url}/metrics", timeout=30).read().decode()
            assert "lensmith_requests_total" in metrics
        finally:
            process.terminate()
        assert process.wait(60) == 0
