"""Real inputs that every test may use: a folder of coloured pictures, and a bundle that tells the colours apart."""

import gc
import getpass
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

from fixtures.bundles import make_bundle
from fixtures.pictures import COLOURS, coloured_picture
from lensmith.bundle.format import GOLDEN, GRAPH, Abstention, Bundle, seal
from lensmith.bundle.image_hashes import FILE, ImageHashes

pytest_plugins = [
    "fixtures.browser",
    "fixtures.command_line",
    "fixtures.http_server",
    "fixtures.redis_server",
    "fixtures.registries",
]

# Several test processes share the cores; set before torch is loaded, and for the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# A thousand small trainings start no side process; tests of tracking say where they track.
os.environ.setdefault("LENSMITH_TRAIN_TRACKING", "none")

# Examples of a property take as long as they take on a busy machine, and so many of them are drawn anew in each run.
hypothesis.settings.register_profile("quick", max_examples=40, deadline=None)
hypothesis.settings.load_profile("quick")

# A shell ignores SIGINT for what it starts in the background, as `nohup` does SIGHUP, and programs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

TOGETHER = (
    "tests/(exporting|training/models/test_onnx_export)",  # torch's exporter, graphs
    "tests/(registry|rollout/test_ledger|tracking/test_(sender|sync)|cli/test_(registry|rollout))",  # MLflow's tables
)
"""Beginnings of the paths of test files that share what takes seconds to make."""

gc.disable()  # while a few thousand modules are imported, which stay


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collection, which would walk through it all again and again."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with most slow tests first, and measure no coverage of slow tests, which would cost minutes.

    Two processes take the files in this order; the last ones are short, so neither waits long for the other.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")


class _FilesTogether(LoadFileScheduling):
    """Gives each file to one process, and the files of TOGETHER to one that makes what they share once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((group for group in TOGETHER if re.match(group, file)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """The order of `--dist loadfile`; other ones are xdist's own."""
    return _FilesTogether(config, log) if config.getvalue("dist") == "loadfile" else None


def make_colours(root: Path, per_class: int = 8) -> Path:
    """Write `per_class` pictures of each colour under root/COLOUR, JPEG and PNG by turns."""
    for label, colour in COLOURS.items():
        (root / label).mkdir(parents=True)
        for number in range(per_class):
            name = f"{number:03d}.{'jpg' if number % 2 else 'png'}"
            coloured_picture(colour, seed=number).save(root / label / name)
    return root


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """An image folder of three classes with eight pictures each."""
    return make_colours(tmp_path / "colours")


@pytest.fixture(scope="session")
def shared_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for tests that leave it as it is."""
    return make_colours(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="session")
def many_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 24 pictures of each class, enough to calibrate int8 on the training ones."""
    return make_colours(tmp_path_factory.mktemp("data") / "many", per_class=24)


_QUICK = {
    "model": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 8, "head_epochs": 1, "batch_size": 4,
    "lr": 3e-3, "backbone_lr_ratio": 1.0, "precision": "fp32", "loader_workers": 0, "device": "cpu",
    "head_solver": "minibatch", "cache_gb": 0,
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _no_threads_for_gradients() -> None:
    """Forks must have none. Autograd starts one a device when first used, and an export makes it believe in eight."""
    if torch := sys.modules.get("torch"):  # imported with the tests that need it
        torch.set_num_threads(1)  # as `_one_thread`
        torch.ones(1, requires_grad=True).backward()


@pytest.fixture(scope="session")
def _one_thread() -> None:
    """Networks as small as these wait for their second thread longer than it helps, on a busy machine ten times."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained(_one_thread: None, shared_colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder, to be left as it is. It holds no bundle."""
    from lensmith.config import TrainSettings
    from lensmith.training.trainer import Trainer

    out = tmp_path_factory.mktemp("runs") / "trained"
    Trainer().start(TrainSettings.model_validate({**_QUICK, "data": shared_colours, "out": out}))
    return out


@pytest.fixture(scope="session")
def quick_settings(_one_thread: None) -> dict[str, Any]:
    """Settings of a training that takes a second and learns the colours, to be left as they are."""
    return _QUICK


@pytest.fixture
def quick(quick_settings: dict[str, Any]) -> dict[str, Any]:
    """The same, to be changed."""
    return dict(quick_settings)


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A real bundle: its graph averages each channel and compares, so it gets every coloured picture right."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle", tuple(COLOURS))


@pytest.fixture(scope="session")
def unsure_bundle(colour_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same bundle, which abstains below a confidence of 0.9; of the coloured pictures it is surer than that."""
    abstention = Abstention(threshold=0.9, wanted=0.95, precision=0.96, coverage=0.8)
    return _remade(colour_bundle, tmp_path_factory.mktemp("bundles") / "unsure", abstention=abstention)


@pytest.fixture(scope="session")
def between(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture between red and green, which the bundles take for green with a confidence of about 0.7."""
    file = tmp_path_factory.mktemp("pictures") / "between.png"
    coloured_picture((116, 122, 50), seed=0).save(file)
    return file


@pytest.fixture
def remake(colour_bundle: Bundle, tmp_path: Path) -> Callable[..., Bundle]:
    """`remake(name, **fields)`: that bundle again, under tmp_path, with other values in its manifest (`_remade`)."""

    return lambda name, /, **fields: _remade(colour_bundle, tmp_path / name, **fields)


def _remade(bundle: Bundle, folder: Path, *, learnt: Sequence[Path] = (), **fields: Any) -> Bundle:
    """A copy of a bundle with other values in its manifest, and with hashes of the images that it `learnt` from."""
    folder.mkdir()
    for file in (GRAPH, GOLDEN):
        shutil.copy(bundle.path / file, folder)
    if learnt:
        hashes = ImageHashes.of(learnt, ())
        hashes.save(folder / FILE)
        fields["image_hashes"] = hashes.entry
    return seal(folder, bundle.manifest.model_copy(update=fields))


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """`program(name, package)`: where a program of Debian's `package` is; without it CI fails and others skip."""

    def find(name: str, package: str) -> str:
        path = shutil.which(name)
        if path is None and os.environ.get("CI") == "true":
            pytest.fail(f"CI must have {name}: install {package}")
        return path or pytest.skip(f"{name} is not installed")

    return find


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port of 127.0.0.1 that nothing listens on, for servers that cannot take port 0."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@dataclass(frozen=True)
class Proxy:
    """A running nginx: its address, the folder of its files and logs, and its process."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    def log(self) -> str:
        """The access log, one JSON object a line."""
        return (self.folder / "logs" / "lensmith.json").read_text()


@pytest.fixture(scope="module")
def proxy(
    program: Callable[..., str], free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Proxy]]:
    """`proxy(url, url, …)`: nginx before these replicas, with the files that `lensmith deploy nginx` writes."""
    nginx = program("nginx", "nginx-light")
    started: list[subprocess.Popen[bytes]] = []

    def start(*urls: str) -> Proxy:
        from lensmith import api

        port = free_port()
        folder = tmp_path_factory.mktemp("nginx") / "files"
        replicas = [url.removeprefix("http://") for url in urls]
        api.deploy("nginx", out=folder, listen=f"127.0.0.1:{port}", replica=replicas, logs=folder / "logs")
        (folder / "logs").mkdir()
        command = [nginx, "-e", "stderr", "-p", str(folder), "-c", "nginx.conf"]
        # Run by root it would become a user that cannot read the folders of tests.
        command += ["-g", f"user {getpass.getuser()};"]
        with (folder / "stderr").open("wb") as log:
            process = subprocess.Popen(command, stderr=log)
        started.append(process)
        while process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", "/livez")
                connection.getresponse().read()
                return Proxy(f"http://127.0.0.1:{port}", folder, process)
            except ConnectionRefusedError:
                time.sleep(0.02)
            finally:
                connection.close()
        pytest.fail((folder / "stderr").read_text())

    yield start
    for process in started:
        process.terminate()
        process.wait()
