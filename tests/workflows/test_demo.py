"""The demo on a few hundred real images."""

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from fixtures.command_line import Run
from lensmith.workflows import demo


@pytest.mark.slow
def test_the_service_answers_as_the_offline_run_and_stays_up_when_asked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(demo.RECIPE, "image_size", 64)
    sizes = ["--train-images", 300, "--test-images", 60]
    code, out, err = run("demo", "--out", tmp_path / "demo", "--keep-serving", "--json", *sizes)
    assert code == 0, err
    shown = json.loads(out)
    assert shown["top1_agreement"] == 1.0
    assert shown["accuracy_http"] == shown["accuracy_offline"] > 0.5
    assert shown["requests_per_second"] > 0
    assert all(Path(shown[name]).exists() for name in ("run", "bundle", "report"))
    try:
        with urllib.request.urlopen(f"{shown['url']}/readyz") as answer:
            assert answer.status == 200
    finally:
        os.kill(shown["pid"], signal.SIGTERM)
    assert os.waitpid(shown["pid"], 0)[1] == 0
