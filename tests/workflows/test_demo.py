"""The demo on a few hundred real images."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_service_answers_as_the_offline_run_and_stays_up_when_asked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lensmith", "demo", "--out", str(tmp_path / "demo"), "--keep-serving", "--json"]
    sizes = ["--train-images", "400", "--test-images", "100"]
    result = subprocess.run([*command, *sizes], capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout.splitlines()[-1])
    assert shown["top1_agreement"] == 1.0
    assert shown["accuracy_http"] == shown["accuracy_offline"] > 0.5
    assert shown["requests_per_second"] > 0
    assert all(Path(shown[name]).exists() for name in ("run", "bundle", "report"))
    try:
        with urllib.request.urlopen(f"{shown['url']}/readyz") as answer:
            assert answer.status == 200
    finally:
        os.kill(shown["pid"], signal.SIGTERM)
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{shown['url']}/livez", timeout=1)
        except urllib.error.URLError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the service is still up after SIGTERM")
