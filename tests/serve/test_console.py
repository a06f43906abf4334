"""The page in a real browser: what a person sees, and that nothing leaves this machine."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lensmith.bundle import Bundle
from lensmith.serve.process import ServiceProcess, start_service

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--window-size=1280,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def service(colour_bundle: Bundle) -> Iterator[ServiceProcess]:
    with start_service(colour_bundle.path) as service:
        yield service


@pytest.fixture
def browser(tmp_path: Path) -> Iterator["webdriver.Chrome"]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        if os.environ.get("CI") == "true":
            pytest.fail("CI must look at the page: install chromium and chromium-driver")
        pytest.skip("Chromium or ChromeDriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        yield driver
    finally:
        driver.quit()


def upload(browser: "webdriver.Chrome", file: Path, state: str) -> None:
    """Choose a file and wait until the answer is `found` or `failed`."""
    browser.find_element(By.ID, "file").send_keys(str(file))
    answer = browser.find_element(By.ID, "answer")
    WebDriverWait(browser, 10).until(lambda _: answer.get_attribute("data-state") == state)


def upload_next(browser: "webdriver.Chrome", file: Path, label: str) -> None:
    """Choose another file and wait until the page names its class."""
    browser.find_element(By.ID, "file").send_keys(str(file))
    summary = browser.find_element(By.ID, "summary")
    WebDriverWait(browser, 10).until(lambda _: summary.get_attribute("textContent").startswith(label))


def test_an_uploaded_picture_is_answered_on_the_page(
    browser: "webdriver.Chrome", service: ServiceProcess, colours: Path, tmp_path: Path
) -> None:
    browser.get(service.url)
    WebDriverWait(browser, 10).until(lambda page: "colours" in page.find_element(By.ID, "model").text)
    assert "blue, green, red" in browser.find_element(By.ID, "lead").text

    upload(browser, colours / "green" / "001.jpg", "found")

    rows = [row.text.split("\n") for row in browser.find_elements(By.CSS_SELECTOR, "#ranking li")]
    assert rows[0] == ["green", "100.0 %"]
    assert sorted(label for label, _ in rows) == ["blue", "green", "red"]
    assert browser.find_element(By.ID, "summary").get_attribute("textContent") == "green, 100.0 %"
    legend = browser.find_element(By.ID, "legend").text
    assert [name in legend for name in ("Inference", "Decoding", "Waiting", "Network")] == [True] * 4
    WebDriverWait(browser, 10).until(lambda page: page.find_element(By.ID, "preview").is_displayed())

    complaints = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert complaints == []
    asked = list(requested_urls(browser))
    assert any(url.endswith("/predict?top_k=5") for url in asked)
    assert {urlsplit(url).hostname for url in asked} == {"127.0.0.1"}
    picture = tmp_path / "page.png"
    assert browser.save_screenshot(str(picture))
    assert picture.stat().st_size > 10_000


def test_a_guess_below_the_models_threshold_is_shown_as_one(
    browser: "webdriver.Chrome", unsure_bundle: Bundle, between: Path, colours: Path, tmp_path: Path
) -> None:
    with start_service(unsure_bundle.path) as service:
        browser.get(service.url)
        WebDriverWait(browser, 10).until(lambda page: "colours" in page.find_element(By.ID, "model").text)
        notice = browser.find_element(By.ID, "unsure")

        upload(browser, between, "found")
        assert "Not sure enough to answer" in notice.text
        assert "Its likeliest guess is green." in notice.text
        assert "answers from a confidence of 90.0 % on" in notice.text
        assert browser.find_element(By.CSS_SELECTOR, "#ranking .label").text == "green"
        summary = browser.find_element(By.ID, "summary")
        assert summary.get_attribute("textContent").startswith("Not sure enough to answer. Likeliest guess: green, ")
        bar, mark = (browser.find_element(By.CSS_SELECTOR, f"#ranking {each}").rect for each in (".bar", ".mark"))
        assert (mark["x"] - bar["x"]) / bar["width"] == pytest.approx(0.9, abs=0.01)
        assert browser.save_screenshot(str(tmp_path / "unsure.png"))

        # And a picture that it is sure of is answered as ever.
        upload_next(browser, colours / "red" / "001.jpg", "red")
        assert not notice.is_displayed()
        assert browser.find_elements(By.CSS_SELECTOR, ".mark") == []


def test_a_file_that_cannot_be_decoded_is_told_in_plain_words(
    browser: "webdriver.Chrome", service: ServiceProcess, colours: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((colours / "red" / "001.jpg").read_bytes()[:300])
    browser.get(service.url)
    upload(browser, broken, "failed")
    assert browser.find_element(By.ID, "failed-title").text == "The image cannot be used"
    assert "cannot be decoded" in browser.find_element(By.ID, "failed-detail").text

    # And the page goes on: the next picture is answered.
    upload(browser, colours / "red" / "001.jpg", "found")
    assert browser.find_element(By.CSS_SELECTOR, "#ranking .label").text == "red"


def test_the_keyboard_reaches_the_file_input_first_and_it_has_a_name(
    browser: "webdriver.Chrome", service: ServiceProcess
) -> None:
    browser.get(service.url)
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.get_attribute("id") == "file"
    assert "choose a file" in focused.accessible_name


def requested_urls(browser: "webdriver.Chrome") -> Iterator[str]:
    """Addresses asked for over a network, from the browser's own log; chrome: and blob: ones are local."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if urlsplit(url).scheme in ("http", "https", "ws", "wss"):
                yield url
