"""The page shows champion and challenger of a canary release, and its decision."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import lensmith.core
from lensmith.rollout.guards import RolloutGuards
from lensmith.rollout.metrics import ModelCounts, bucket_of
from lensmith.rollout.state import CanaryRelease, Decision, DesiredState
from lensmith.serving.routes.page import CONSOLE

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.browser

Show = Callable[..., "webdriver.Chrome"]

MODEL = {
    "name": "flowers", "version": "6", "created": "2026-01-01T00:00:00Z", "labels": ["rose", "tulip"],
    "image_size": 32, "engine": "onnxruntime", "precision": "fp32", "metrics": {}, "abstention": None, "loaded": [],
    "value_ranges": {}, "max_bytes": 10_000_000, "max_pixels": 1_000_000, "max_images": 8,
}  # fmt: skip
METRICS = 'lensmith_model_info{name="flowers",version="6",engine="onnxruntime",precision="fp32"} 1\n'

ASSETS = Path(lensmith.core.__file__).parent / "page_assets"


@pytest.fixture
def served() -> Iterator[tuple[str, dict[str, Any]]]:
    """The page of the service at an address, with answers that a test may change."""
    answers: dict[str, Any] = {"/model": MODEL, "/metrics": METRICS, "/rollout": None}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            name = "index.html" if self.path == "/" else self.path.removeprefix("/console/")
            file = next((each / name for each in (CONSOLE, ASSETS) if (each / name).is_file()), CONSOLE / name)
            if answer is not None:
                kind = "text/plain" if isinstance(answer, str) else "application/json"
                self._send(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode(), kind)
            elif self.path not in answers and file.is_file():
                kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
                self._send(file.read_bytes(), kinds.get(file.suffix, "text/html"))
            else:
                self.send_error(404)

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", answers
        server.shutdown()


@pytest.fixture
def show(served: tuple[str, dict[str, Any]], browser: "webdriver.Chrome") -> Show:
    """`show(rollout, narrow)`: Chromium with the page; `rollout` is the answer of GET /rollout."""
    url, answers = served

    def open_page(rollout: Any, narrow: bool = False) -> "webdriver.Chrome":
        answers["/rollout"] = rollout
        if narrow:
            dark = [{"name": "prefers-color-scheme", "value": "dark"}]
            phone = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        browser.get(url)
        return browser

    return open_page


def desired_state(failed: int, decision: Decision | None = None, **more: Any) -> dict[str, Any]:
    """The answer of GET /rollout."""
    rollout = CanaryRelease(id="flowers-3", name="flowers", champion="6", challenger="7", **more)
    fast = {bucket_of(38.0): 980, bucket_of(120.0): 20}
    champion = ModelCounts(9000, 9, classes={0: 4500, 1: 4500}, right=180, wrong=20)  # type: ignore[arg-type]
    challenger = ModelCounts(1000 - failed, failed, classes={0: 490, 1: 500}, right=55, wrong=5)  # type: ignore[arg-type]
    for counts in (champion, challenger):
        counts.classes, counts.latency, counts.work = (Counter(found) for found in (counts.classes, fast, fast))
    if rollout.shadow:
        challenger.compared, challenger.agreed = 1000, 950
    figures = RolloutGuards(rollout).assess(champion, challenger).figures
    found = DesiredState(
        name="flowers", alias="champion", version="6", path=Path("b"), rollout=rollout, decision=decision,
        comparison=figures,
    )  # fmt: skip
    return found.model_dump(mode="json", exclude={"path", "challenger_path"})


def section(page: "webdriver.Chrome", text: str) -> Any:
    """The page's section of the rollout, once it has that text."""
    found = page.find_element(By.ID, "rollout")
    WebDriverWait(page, 10).until(lambda _: text in found.text)
    return found


def test_champion_and_challenger_stand_side_by_side(show: Show, tmp_path: Path) -> None:
    page = show(desired_state(failed=2))
    found = section(page, "Under way")
    assert "version 7 answers 10 % of requests" in found.text
    rows = [row.text for row in found.find_elements(By.CSS_SELECTOR, "tr")]
    assert rows[0] == "Champion 6 Challenger 7"
    assert rows[1] == "Requests 9,009 1,000"
    assert "0.1 %" in rows[2]
    assert "0.2 %" in rows[2]
    assert "of 60" in found.text
    assert "Class shift" in found.text
    states = {
        item.find_element(By.CLASS_NAME, "guard").text: item.get_attribute("data-state")
        for item in found.find_elements(By.CSS_SELECTOR, "#rollout-guards li")
    }
    assert states == {"Errors": "fine", "Latency": "too little data", "Classes": "fine", "Feedback": "fine"}
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", found)
    assert page.save_screenshot(str(tmp_path / "rollout.png"))
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_decision_is_shown_with_its_reason(show: Show) -> None:
    reason = "6.00% of the challenger's requests failed, <b>0.10%</b> of the champion's"
    decision = Decision(outcome="rolled_back", guard="errors", reason=reason)
    found = section(show(desired_state(60, decision)), "Rolled back")
    assert reason in found.text  # as text: nothing in it is markup
    assert "version 6 serves" in found.text
    assert found.get_attribute("data-outcome") == "rolled_back"


def test_in_shadow_mode_agreement_is_shown(show: Show) -> None:
    found = section(show(desired_state(0, shadow=True)), "Agreement")
    assert "works on copies of 10 % of requests" in found.text
    assert "95.0 % of 1,000" in found.text


@pytest.mark.parametrize("answer", [None, {"name": None, "version": None, "rollout": None, "decision": None}])
def test_without_a_rollout_nothing_is_shown(show: Show, answer: Any) -> None:
    page = show(answer)
    WebDriverWait(page, 10).until(lambda _: "flowers" in page.find_element(By.ID, "model").text)
    assert not page.find_element(By.ID, "rollout").is_displayed()


def test_on_a_narrow_phone_nothing_is_cut_off(show: Show, tmp_path: Path) -> None:
    page = show(desired_state(60, shadow=True), narrow=True)
    found = section(page, "Under way")
    assert page.execute_script("return document.documentElement.scrollWidth") <= 320
    assert found.size["width"] <= 320
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", found)
    assert page.save_screenshot(str(tmp_path / "phone.png"))
