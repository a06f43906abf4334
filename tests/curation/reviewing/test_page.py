"""The page in a real browser: what a person sees, and that no decision is lost while the server is killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.browser import require_readable
from fixtures.pictures import COLOURS, coloured_picture
from lensmith.curation.reviewing.journal import read

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

pytestmark = pytest.mark.browser

DECISIONS = 200
OTHERS = 60
"""Decisions of a second reviewer at the same time."""
KILLS = (15, 80, 160)


class Server:
    """`lensmith review` in a process of its own, at one port."""

    def __init__(self, source: Path, out: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self._command = [sys.executable, "-m", "lensmith", "review", source, "--out", out, "--port", port,
                         "--reviewer", "anna"]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(list(map(str, self._command)), stderr=subprocess.DEVNULL)

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + 60
        while not self.answers():
            assert time.monotonic() < deadline
            assert self._process is not None
            assert self._process.poll() is None
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}api/changes", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self._process.pid, how)
        return self._process.wait(30)


@pytest.fixture
def serve(free_port: Callable[[], int], tmp_path: Path) -> Iterator[Callable[[Path], Server]]:
    started: list[Server] = []

    def make(source: Path) -> Server:
        started.append(Server(source, tmp_path / "reviewed.csv", free_port()))
        started[-1].start()
        started[-1].wait()
        return started[-1]

    yield make
    for each in started:
        each.stop(signal.SIGKILL)


def press(browser: Any, *keys: str) -> None:
    ActionChains(browser, duration=0).send_keys(*keys).perform()


def text_of(browser: Any, name: str) -> str:
    return str(browser.find_element(By.ID, name).get_attribute("textContent"))


def wait_for(browser: Any, name: str, beginning: str) -> None:
    WebDriverWait(browser, 30, 0.05).until(lambda _: text_of(browser, name).startswith(beginning))


def decide_as_bob(url: str) -> None:
    """Sends decisions as the page does: each again under its id until it is answered."""
    for number in range(OTHERS):
        body = json.dumps({"id": f"bob-{number:05d}", "by": "bob", "position": number, "action": "label",
                           "label": "green"}).encode()  # fmt: skip
        request = urllib.request.Request(f"{url}api/decisions", body, {"content-type": "application/json"})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5):
                    break
            except urllib.error.HTTPError:
                raise
            except OSError:
                time.sleep(0.05)
        time.sleep(0.03)


@pytest.mark.slow
def test_two_hundred_decisions_survive_a_server_that_is_killed(
    browser: Any, serve: Callable[[Path], Server], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(DECISIONS):
        coloured_picture(list(COLOURS.values())[number % 3], seed=number).save(photos / f"{number:03d}.png")
    (tmp_path / "list.csv").write_text(
        "path,suggested,score\n" + "".join(f"photos/{n:03d}.png,{['blue', 'green', 'red'][n % 3]},0.5\n"
                                           for n in range(DECISIONS))
    )  # fmt: skip
    server = serve(tmp_path / "list.csv")
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in photos.iterdir()}
    browser.get(server.url)
    wait_for(browser, "progress-text", f"0 of {DECISIONS}")
    Select(browser.find_element(By.ID, "filter")).select_by_value("all")
    browser.find_element(By.ID, "stage").click()
    other = threading.Thread(target=decide_as_bob, args=(server.url,))
    other.start()
    for number in range(DECISIONS):
        press(browser, str(number % 3 + 1))
        if number in KILLS:
            server.wait()
            press(browser, "+", Keys.ESCAPE)
            server.stop(signal.SIGKILL)
            server.start()
    other.join(30)
    wait_for(browser, "saved", "All saved in reviewed.journal.jsonl")
    wait_for(browser, "progress-text", f"{DECISIONS} of {DECISIONS}")
    assert not browser.find_element(By.ID, "notice").is_displayed()

    decisions = read(tmp_path / "reviewed.journal.jsonl")
    assert len({each.id for each in decisions}) == len(decisions) == DECISIONS + OTHERS
    labels = ("blue", "green", "red")
    mine = [(each.path, each.label) for each in decisions if each.by == "anna"]
    assert mine == [(f"photos/{number:03d}.png", labels[number % 3]) for number in range(DECISIONS)]

    assert server.stop(signal.SIGINT) == 0
    with (tmp_path / "reviewed.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert Counter(row["annotator"] for row in rows) == {"anna": DECISIONS, "bob": OTHERS}
    assert {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in photos.iterdir()} == before


def test_a_person_finds_their_way_with_keys_in_both_views_and_schemes(
    browser: Any, serve: Callable[[Path], Server], shared_colours: Path, tmp_path: Path
) -> None:
    server = serve(shared_colours)
    browser.get(server.url)
    wait_for(browser, "progress-text", "0 of 24")
    browser.find_element(By.ID, "stage").click()
    press(browser, Keys.ENTER)  # keep
    press(browser, "gr", Keys.ENTER)  # completed
    press(browser, ".")
    press(browser, Keys.DELETE)
    press(browser, "teal", Keys.ENTER)
    wait_for(browser, "message", "There is no class “teal” yet")
    press(browser, Keys.ENTER)
    wait_for(browser, "where", "6 of 24")
    press(browser, "Red", Keys.ENTER)  # the class that is known
    press(browser, "2", Keys.BACKSPACE)
    wait_for(browser, "saved", "All saved")
    found = [(each.action, each.label) for each in read(tmp_path / "reviewed.journal.jsonl")]
    assert found == [("label", "blue"), ("label", "green"), ("skip", ""), ("exclude", ""), ("label", "teal"),
                     ("label", "red"), ("label", "green"), ("undo", "")]  # fmt: skip
    assert text_of(browser, "progress-text") == "5 of 24 decided"
    assert "Taken back" in text_of(browser, "live")

    browser.refresh()  # it resumes with what is not decided
    wait_for(browser, "where", "1 of 18")
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for view in ("view-single", "view-grid"):
            browser.find_element(By.ID, view).click()
            require_readable(browser)
    press(browser, Keys.SPACE, Keys.ARROW_RIGHT, Keys.SPACE)
    assert text_of(browser, "grid-count").endswith(", 2 selected")
    require_readable(browser)
    press(browser, "3")
    wait_for(browser, "progress-text", "7 of 24")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True})  # fmt: skip
    try:
        for view in ("view-grid", "view-single"):
            browser.find_element(By.ID, view).click()
            assert browser.execute_script("return document.documentElement.scrollWidth") == 360
            # At the end of the page nothing lies below what sticks to its lower edge, which axe could not see through.
            browser.execute_script("scrollTo(0, document.body.scrollHeight)")
            require_readable(browser)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [entry["message"] for entry in severe if "409" not in entry["message"]] == []
