"""`lensmith.ops.loadtest.run` from settings to results."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lensmith.bundle.format import Bundle
from lensmith.config import BenchSettings
from lensmith.errors import ServiceError, SettingsError
from lensmith.ops.loadtest import run
from lensmith.ops.loadtest.run import bench

QUICK = {"duration": 0.3, "warmup_time": 0, "clients": 2}


@pytest.mark.slow
def test_a_bundle_is_served_with_its_golden_images_and_the_service_is_stopped(colour_bundle: Bundle) -> None:
    found = bench(BenchSettings(target=str(colour_bundle.path), **QUICK))
    assert found.ok == found.requests > 20
    assert found.url.endswith("/predict")
    with pytest.raises(ServiceError):
        bench(BenchSettings(target=found.url, **QUICK))


@pytest.fixture(autouse=True)
def _one_synthetic_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SYNTHETIC_IMAGES", 1)  # each takes tens of milliseconds


def test_images_of_a_folder_are_sent_in_turn(server_of: Any, answer: Any, colours: Path) -> None:
    server = server_of(lambda number: answer(wait_s=0.002))
    bench(BenchSettings(target=server.url, image_files=colours, **{**QUICK, "clients": 1}))
    sent = server.bodies[1:]  # after the one that shows that the service is there
    assert len(set(sent[:24])) == 24
    assert sent[24:30] == sent[:6]


def test_without_images_drawn_ones_are_sent(server_of: Any, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SYNTHETIC_IMAGES", 3)
    server = server_of(lambda number: answer(wait_s=0.002))
    bench(BenchSettings(target=server.url, **QUICK))
    assert len(set(server.bodies)) == 3


def test_a_result_and_a_picture_are_left(server_of: Any, answer: Any, tmp_path: Path) -> None:
    server = server_of(lambda number: answer(status=503 if number % 9 == 0 else 200, wait_s=0.002))
    found = bench(BenchSettings(target=server.url, rate=200, out=tmp_path / "out", duration=0.3, warmup_time=0))
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == json.loads(json.dumps(found.as_dict()))
    assert Image.open(tmp_path / "out" / "bench.png").width > 800


def test_the_token_comes_from_a_file_or_the_environment(
    server_of: Any, answer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_of(lambda number: answer(wait_s=0.01))
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("LENSMITH_TOKEN", "from-environment")
    bench(BenchSettings(target=server.url, token_file=tmp_path / "token", **QUICK))
    assert all("Bearer from-file\r\n" in head for head in server.heads)
    server.heads.clear()
    bench(BenchSettings(target=server.url, **QUICK))
    assert all("Bearer from-environment\r\n" in head for head in server.heads)


@pytest.mark.parametrize("content", ["two words", "schlüssel", None])
def test_a_file_that_holds_no_token_is_refused_without_showing_it(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError) as refused:
        bench(BenchSettings(target="http://127.0.0.1:9", token_file=file, **QUICK))
    assert content is None or content not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "--token-file"), (404, "address"), (415, "--image-files"), (422, "--form")]
)
def test_a_service_that_does_not_take_the_requests_is_not_loaded(
    server_of: Any, answer: Any, status: int, remedy: str
) -> None:
    server = server_of(lambda number: answer(status=status))
    with pytest.raises(ServiceError, match=remedy):
        bench(BenchSettings(target=server.url, **QUICK))
    assert len(server.heads) == 1


def test_a_service_that_is_just_overloaded_is_loaded(server_of: Any, answer: Any) -> None:
    server = server_of(lambda number: answer(status=503 if number < 3 else 200, wait_s=0.01))
    assert bench(BenchSettings(target=server.url, **QUICK)).ok > 0


def test_ctrl_c_reports_what_was_measured_so_far(server_of: Any, answer: Any) -> None:
    heard = threading.Event()

    def respond(number: int) -> Any:
        if number == 100:
            heard.set()
        return answer(wait_s=0.002)

    server = server_of(respond)
    command = [sys.executable, "-m", "lensmith", "bench", server.url, "--duration=300s", "--warmup-time=0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert heard.wait(60)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    found = json.loads(out)
    assert (process.returncode, err) == (0, "")
    assert found["interrupted"]
    assert found["ok"] >= 80
    assert found["seconds"] < 200
