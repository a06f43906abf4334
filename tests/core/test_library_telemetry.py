"""The telemetry of libraries is off in every process, with the network watched."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lensmith.bundle.format import Bundle
from lensmith.core.library_telemetry import PACKAGES, VARIABLES, turn_off

IMPORTS = "onnxruntime openvino openvino.tools.ovc nncf mlflow huggingface_hub timm transformers albumentations ray"


def test_a_variable_that_somebody_has_set_is_left_and_an_empty_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setenv("DO_NOT_TRACK", " ")
    turn_off()
    assert {name: os.environ[name] for name in VARIABLES} == {**VARIABLES, "ORT_DISABLE_TELEMETRY": "0"}


def test_what_only_reports_use_cannot_be_imported() -> None:
    assert [name for name in PACKAGES if sys.modules.get(name)] == []


@pytest.fixture
def watched(program: Callable[..., str], tmp_path: Path) -> Callable[..., tuple[list[str], list[str]]]:
    """`watched(*command)`: addresses and names that the command's processes ask for, and the files in its home."""
    strace = program("strace", "strace")
    if subprocess.run([strace, "-qq", "true"], capture_output=True, check=False).returncode:
        reason = "strace may not watch processes here"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)

    def run(*command: str, **environment: str) -> tuple[list[str], list[str]]:
        home, log = tmp_path / "home", tmp_path / "network.txt"
        home.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if name not in {*VARIABLES, "XDG_CACHE_HOME"}}
        given = {**kept, "HOME": str(home), "LENSMITH_CACHE": str(tmp_path / "cache"), **environment}
        calls = "trace=connect,sendto,sendmsg,sendmmsg"
        done = subprocess.run(
            [strace, "-f", "--seccomp-bpf", "-qq", "-s", "200", "-e", "signal=none", "-e", calls, "-o", log, *command],
            env=given, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        asked = [line for line in log.read_text().splitlines() if re.search(r"AF_INET6?", line)]
        outside = [line for line in asked if "127.0.0.1" not in line and '"::1"' not in line]
        written = {str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()}
        return outside, sorted(name for name in written if not name.startswith(".cache/matplotlib/"))

    return run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_request_to_the_outside_is_seen(watched: Callable[..., tuple[list[str], list[str]]]) -> None:
    code = "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('telemetry.invalid', 80)"
    asked, _ = watched(*python(code))
    assert any("telemetry" in line or "htons(53)" in line for line in asked)


@pytest.mark.slow
def test_a_program_that_imports_lensmith_and_libraries_asks_for_nobody(
    watched: Callable[..., tuple[list[str], list[str]]], colour_bundle: Bundle, shared_colours: Path
) -> None:
    code = f"""
import importlib, time, lensmith
loaded = lensmith.load({str(colour_bundle.path)!r})
loaded.predict([{str(shared_colours / "red" / "001.jpg")!r}])
for name in {IMPORTS.split()!r}:
    try:
        importlib.import_module(name)
    except ImportError:
        print(name, "is not installed")
time.sleep(1)
"""
    assert watched(*python(code)) == ([], [])


@pytest.mark.slow
def test_training_export_and_service_ask_for_nobody(
    watched: Callable[..., tuple[list[str], list[str]]], many_colours: Path, tmp_path: Path
) -> None:
    """All verbs with their data-loader workers, helper processes, tracking sidecar and worker processes."""
    code = f"""
import http.client, subprocess, sys, time
lensmith = [sys.executable, "-m", "lensmith"]
training = "--model test_resnet --no-pretrained --image-size 32 --epochs 2 --head-epochs 1 --loader-workers 1"
folder = {str(many_colours)!r}
subprocess.run([*lensmith, "train", folder, "--out", "run", "--device", "cpu", *training.split()], check=True)
subprocess.run([*lensmith, "predict", "run/bundle", folder, "--out", "answers.csv"], check=True)
with subprocess.Popen([*lensmith, "serve", "run/bundle", "--port", "0", "--workers", "2"], stdout=-1) as service:
    port = int(service.stdout.readline().rpartition(b":")[2])
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("POST", "/predict", open(folder + "/red/001.jpg", "rb").read())
    assert client.getresponse().status == 200
    time.sleep(1)
    service.terminate()
assert service.returncode == 0
"""
    tracking = {"LENSMITH_TRAIN_TRACKING": "auto", "LENSMITH_TRACKING_URI": f"sqlite:///{tmp_path / 'runs.db'}"}
    assert watched(*python(code), **tracking) == ([], [])
    assert (tmp_path / "runs.db").exists()
