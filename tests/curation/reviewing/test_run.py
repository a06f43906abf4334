"""Starting and stopping a review, in this process."""

import sys
import threading
import time
import urllib.request
import webbrowser
from pathlib import Path

import pytest

from lensmith.config import ReviewSettings
from lensmith.curation.reviewing import run


@pytest.mark.parametrize(
    ("is_terminal", "display", "wanted", "opened"),
    [(True, ":0", True, True), (False, ":0", True, False), (True, "", True, False), (True, ":0", False, False)],
)
def test_the_browser_opens_for_somebody_at_a_desktop(
    is_terminal: bool, display: str, wanted: bool, opened: bool, photos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", asked.append)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    servers: list[run._Server] = []
    monkeypatch.setattr(run, "_Server", lambda config: servers.append(server := run.uvicorn.Server(config)) or server)
    lines: list[str] = []
    settings = ReviewSettings(source=photos, out=tmp_path / "new" / "r.csv", port=0, open=wanted)
    thread = threading.Thread(target=run.review, args=(settings, lines.append))
    thread.start()
    deadline = time.monotonic() + 30
    while not (servers and servers[0].started) and time.monotonic() < deadline:
        time.sleep(0.01)
    address = lines[0].rpartition(" ")[2]
    with urllib.request.urlopen(address, timeout=10) as page:
        assert page.status == 200
    servers[0].should_exit = True
    thread.join(30)
    assert asked == ([address] if opened else [])
    assert len((tmp_path / "new" / "r.csv").read_text().splitlines()) == 10
