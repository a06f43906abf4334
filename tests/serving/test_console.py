"""The page in a real browser: what a person sees, and that nothing leaves this machine."""

import dataclasses
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from fixtures.browser import require_readable
from fixtures.faults import ask, sample
from fixtures.pictures import encoded, photo
from fixtures.tokens import SECRET, token
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.serving.child_process import ServiceProcess, start_service

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def service(unsure_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service of two models that abstain, with small limits."""
    second = tmp_path_factory.mktemp("bundles") / "second"
    shutil.copytree(unsure_bundle.path, second)
    manifest = unsure_bundle.manifest.model_copy(update={"version": "2"})
    (second / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    limits = {"max_bytes": 100_000, "max_pixels": 400_000, "max_images": 4}
    with start_service(unsure_bundle.path, beside=second, **limits) as service:
        yield service


@pytest.fixture(scope="module")
def colours(shared_colours: Path) -> Path:
    return shared_colours


@pytest.fixture
def broken(colours: Path, tmp_path: Path) -> Path:
    """A JPEG that is cut off."""
    file = tmp_path / "broken.jpg"
    file.write_bytes((colours / "red" / "001.jpg").read_bytes()[:300])
    return file


def wait_for_text(browser: "webdriver.Chrome", name: str, text: str) -> None:
    WebDriverWait(browser, 10).until(lambda _: browser.find_element(By.ID, name).text == text)


def wait_for_state(browser: "webdriver.Chrome", name: str, state: str) -> None:
    element = browser.find_element(By.ID, name)
    WebDriverWait(browser, 10).until(lambda _: element.get_attribute("data-state") == state)


def upload(browser: "webdriver.Chrome", file: Path, state: str) -> None:
    """Choose a file and wait until the answer is `found` or `failed`."""
    browser.find_element(By.ID, "file").send_keys(str(file))
    wait_for_state(browser, "answer", state)


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
    browser: "webdriver.Chrome", service: ServiceProcess, between: Path, colours: Path, tmp_path: Path
) -> None:
    browser.get(service.url)
    wait_for_model(browser)
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
    browser: "webdriver.Chrome", service: ServiceProcess, colours: Path, broken: Path
) -> None:
    browser.get(service.url)
    upload(browser, broken, "failed")
    assert browser.find_element(By.ID, "failed-title").text == "The image cannot be used"
    assert "cannot be decoded" in browser.find_element(By.ID, "failed-detail").text

    # And the page goes on: the next picture is answered.
    upload(browser, colours / "red" / "001.jpg", "found")
    assert browser.find_element(By.CSS_SELECTOR, "#ranking .label").text == "red"


def test_several_pictures_are_answered_at_once_each_in_its_place(
    browser: "webdriver.Chrome", service: ServiceProcess, colours: Path, broken: Path
) -> None:
    files = [colours / "red" / "001.jpg", broken, colours / "blue" / "002.png", colours / "green" / "003.jpg"]
    browser.get(service.url)
    browser.find_element(By.ID, "file").send_keys("\n".join(map(str, files)))
    wait_for_text(browser, "gallery-count", "3 answered, 1 not")

    assert browser.find_element(By.ID, "gallery-title").text == "4 pictures"
    thumbs = browser.find_elements(By.CSS_SELECTOR, ".thumb")
    assert [thumb.text.split("\n") for thumb in thumbs] == [
        ["red", "100.0 %"], ["The image cannot be used"], ["blue", "100.0 %"], ["green", "100.0 %"],
    ]  # fmt: skip
    assert thumbs[2].accessible_name == "blue, 100.0 %, 002.png"
    assert answered(browser) == "red"
    assert "Time for 4 pictures" in browser.find_element(By.ID, "answer").text
    asked = [url for url in requested_urls(browser) if "/predict" in url]
    assert [urlsplit(url).path for url in asked] == ["/predict/batch"]

    thumbs[3].click()
    assert answered(browser) == "green"
    assert [thumb.get_attribute("aria-current") for thumb in thumbs] == [None, None, None, "true"]
    assert browser.find_element(By.ID, "preview").get_attribute("alt") == "003.jpg"
    thumbs[1].click()
    assert "cannot be decoded" in browser.find_element(By.ID, "failed-detail").text
    assert not browser.find_element(By.ID, "again").is_displayed()  # it would not help

    # One picture after several: no gallery is left.
    upload_next(browser, colours / "blue" / "001.jpg", "blue")
    assert not browser.find_element(By.ID, "gallery").is_displayed()


@pytest.mark.slow
def test_whoever_looks_can_say_whether_an_answer_is_right(
    browser: "webdriver.Chrome", service: ServiceProcess, colours: Path
) -> None:
    def heard() -> list[int]:
        """Answers judged so far, and those that were right."""
        versions = json.loads(ask(service.url, "/feedback")[2])["versions"]
        return [sum(each[name] for each in versions) for name in ("labels", "right")]

    def wait_for(text: str) -> None:
        note = browser.find_element(By.ID, "verdict-note")
        WebDriverWait(browser, 10).until(lambda _: text in note.text)

    before = heard()
    browser.get(service.url)
    wait_for_model(browser)
    upload(browser, colours / "red" / "001.jpg", "found")
    browser.find_element(By.ID, "right").click()
    wait_for("Noted as red.")
    assert not browser.find_element(By.ID, "right").is_displayed()
    assert heard() == [before[0] + 1, before[1] + 1]

    # Of several each is asked about by itself, by its place in the request.
    files = [colours / label / "001.jpg" for label in ("green", "blue")]
    browser.find_element(By.ID, "file").send_keys("\n".join(map(str, files)))
    wait_for_text(browser, "gallery-count", "2 answered")
    assert browser.find_element(By.ID, "verdict-note").text == ""
    browser.find_elements(By.CSS_SELECTOR, ".thumb")[1].click()
    truth, wrong = browser.find_element(By.ID, "truth"), browser.find_element(By.ID, "wrong")
    assert not truth.is_displayed()
    wrong.click()
    assert wrong.get_attribute("aria-expanded") == "true"
    field = browser.switch_to.active_element
    assert field.accessible_name == "What is it?"
    offered = browser.find_elements(By.CSS_SELECTOR, "#labels option")
    assert [each.get_attribute("value") for each in offered] == ["blue", "green", "red"]
    field.send_keys("gren", Keys.ENTER)
    wait_for("Did you mean green?")
    field.clear()
    field.send_keys("green", Keys.ENTER)
    wait_for("Noted as green.")
    assert not truth.is_displayed()
    assert heard() == [before[0] + 2, before[1] + 1]
    browser.find_elements(By.CSS_SELECTOR, ".thumb")[0].click()
    assert browser.find_element(By.ID, "right").is_displayed()
    browser.find_elements(By.CSS_SELECTOR, ".thumb")[1].click()
    assert browser.find_element(By.ID, "verdict-note").text == "Thank you. Noted as green."


def test_more_pictures_than_one_request_may_hold_go_in_several(
    browser: "webdriver.Chrome", service: ServiceProcess, colours: Path
) -> None:
    browser.get(service.url)
    wait_for_model(browser)
    files = [*(colours / "red").iterdir(), colours / "blue" / "001.jpg"]
    browser.find_element(By.ID, "file").send_keys("\n".join(map(str, files)))
    wait_for_text(browser, "gallery-count", "9 answered")
    assert len([url for url in requested_urls(browser) if "/predict/batch" in url]) == 3


def test_a_file_beyond_the_limit_that_is_no_picture_is_refused_before_it_is_sent(
    browser: "webdriver.Chrome", service: ServiceProcess, noise_jpeg: bytes, tmp_path: Path
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff\xd8\xff\xe0" + noise_jpeg[::-1])
    browser.get(service.url)
    wait_for_model(browser)
    upload(browser, large, "failed")
    assert browser.find_element(By.ID, "failed-title").text == "The picture is too large"
    assert "At most 100 kB" in browser.find_element(By.ID, "failed-detail").text
    assert not [url for url in requested_urls(browser) if "/predict" in url]


def _phone_photo() -> bytes:
    """A photo of 12 megapixels and about 7 MB, taken with the camera turned."""
    upright = photo().resize((3000, 4000), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 7, (4000, 3000, 1))
    pixels = np.clip(np.asarray(upright) + grain, 0, 255).astype(np.uint8)
    pixels[:1500, :, 2] //= 3  # the upper part is yellow, so that a wrong turn shows
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    return encoded(turned, "JPEG", quality=96, exif=exif)


def _drawings() -> dict[str, bytes]:
    drawing = photo("coffee.png").resize((300, 200))
    clear = drawing.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(drawing.size))
    return {
        "photo.webp": encoded(drawing, "WEBP", lossless=True),
        "clear.webp": encoded(clear, "WEBP", lossless=True, exact=True),
        "photo.avif": encoded(drawing, "AVIF", quality=95),
        "photo.gif": encoded(drawing, "GIF"),
        "photo.bmp": encoded(drawing, "BMP"),
        "large.png": encoded(photo().resize((900, 700))),
        "webp-in-disguise.jpg": encoded(drawing, "WEBP", lossless=True),
    }


def test_large_and_foreign_pictures_are_answered_like_their_originals(
    browser: "webdriver.Chrome", service: ServiceProcess, unsure_bundle: Bundle, tmp_path: Path
) -> None:
    panorama = encoded(photo().resize((3000, 200)), "JPEG", quality=60)  # few bytes, many pixels
    pictures = {**_drawings(), "panorama.jpg": panorama, "phone.jpg": _phone_photo()}
    assert len(panorama) < 100_000
    assert len(pictures["phone.jpg"]) > 5_000_000
    taken = ("jpeg", "png", "webp", "bmp", "gif", "avif")
    with start_service(unsure_bundle.path, formats=taken, max_bytes=20_000_000) as whole:
        expected = {name: json.loads(ask(whole.url, "/predict", each)[2])["top"] for name, each in pictures.items()}
    browser.get(service.url)
    wait_for_model(browser)
    for name, content in pictures.items():
        file = tmp_path / name
        file.write_bytes(content)
        assert ask(service.url, "/predict", content)[0] in (413, 415, 422)  # as it is, it is not taken
        browser.find_element(By.ID, "file").send_keys(str(file))
        hint = browser.find_element(By.ID, "hint")
        shown = re.compile(re.escape(f"{name} · ") + ".*, sent as (JPEG|PNG) of ")
        WebDriverWait(browser, 20).until(lambda _, hint=hint, shown=shown: shown.search(hint.text))
        wait_for_state(browser, "answer", "found")
        rows = [row.text.split("\n") for row in browser.find_elements(By.CSS_SELECTOR, "#ranking li")]
        shares = {label: float(share.replace("<", "").replace("%", "")) / 100 for label, share in rows}
        for each in expected[name]:
            assert shares[each["label"]] == pytest.approx(each["confidence"], abs=0.02), (name, rows, expected[name])
    assert "Scaling down here" in browser.find_element(By.ID, "legend").text
    assert browser.save_screenshot(str(tmp_path / "phone.png"))

    # Several at once, each in its place.
    browser.find_element(By.ID, "file").send_keys("\n".join(str(tmp_path / name) for name in pictures))
    wait_for_text(browser, "gallery-count", f"{len(pictures)} answered")


def test_a_deep_picture_is_not_sent_with_another_range(
    browser: "webdriver.Chrome", unsure_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = tmp_path / "deep"
    shutil.copytree(unsure_bundle.path, bundle)
    how = dataclasses.replace(unsure_bundle.manifest.preprocessing, value_ranges={"uint16": (0.0, 4095.0)})
    manifest = unsure_bundle.manifest.model_copy(update={"preprocessing": how})
    (bundle / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    noise = np.random.default_rng(0).integers(3000, 4096, (300, 300), dtype=np.uint16)
    for name, pixels in (("small.png", noise[:99, :99]), ("large.png", noise)):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(pixels)))
    with start_service(bundle, max_bytes=100_000) as service:
        browser.get(service.url)
        wait_for_model(browser)
        upload(browser, tmp_path / "small.png", "found")
        before = list(requested_urls(browser))
        upload(browser, tmp_path / "large.png", "failed")
        assert browser.find_element(By.ID, "failed-title").text == "The picture is too large"
        assert "cannot scale it down" in browser.find_element(By.ID, "failed-detail").text
        assert any("/predict" in url for url in before)
        assert not [url for url in requested_urls(browser) if "/predict" in url]


def test_what_the_browser_cannot_decode_is_named_by_the_service(
    browser: "webdriver.Chrome", service: ServiceProcess, tmp_path: Path
) -> None:
    file = tmp_path / "scan.tif"
    file.write_bytes(encoded(photo().resize((60, 40)), "TIFF"))
    browser.get(service.url)
    wait_for_model(browser)
    upload(browser, file, "failed")
    assert "it is TIFF" in browser.find_element(By.ID, "failed-detail").text
    assert "--formats jpeg,png,tiff" in browser.find_element(By.ID, "failed-detail").text


def test_the_tiles_show_what_the_service_counts(
    browser: "webdriver.Chrome", service: ServiceProcess, red_png: bytes
) -> None:
    browser.get(service.url)
    tile = browser.find_element(By.ID, "live")
    WebDriverWait(browser, 10).until(lambda _: tile.get_attribute("data-state") == "shown")

    def told() -> str:
        return str(browser.find_element(By.ID, "tile-requests").get_attribute("title"))

    def twelve_told() -> bool:
        """Whether 12 requests and no other were told of; a machine that stood still may miss them once."""
        WebDriverWait(browser, 30).until(lambda _: told().startswith("0 requests in"))
        for _ in range(12):
            ask(service.url, "/predict", red_png)
        ask(service.url, "/model")
        until = time.monotonic() + 12
        while time.monotonic() < until:
            if told().startswith("12 requests in"):
                return True
            time.sleep(0.1)
        return False

    assert any(twelve_told() for _ in range(5))
    # In one step, so that no later reading comes between.
    shown = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.tile')].map((tile) => [tile.id,"
        " [tile.querySelector('.figure b').textContent, tile.title, tile.querySelectorAll('polyline').length]]))"
    )
    rate, more, lines = shown["tile-requests"]
    seconds = float(more.rpartition("in ")[2].removesuffix(" s"))
    assert 12 / (seconds + 0.5) - 0.1 <= float(rate) <= 12 / (seconds - 0.5) + 0.1
    assert lines == 1
    assert 0 < float(shown["tile-p50"][0]) <= float(shown["tile-p99"][0])
    assert [shown[f"tile-{name}"][0] for name in ("errors", "shed", "under-way")] == ["0", "0", "0"]
    resident = sample(service.url, "lensmith_memory_bytes")
    assert float(shown["tile-memory"][0]) == pytest.approx(resident / 1e6, rel=0.2)
    served = [each.text for each in browser.find_elements(By.CSS_SELECTOR, "#served .which")]
    assert served == ["colours@1", "colours@2"]
    assert browser.find_element(By.CSS_SELECTOR, "#served .how").text == "onnxruntime fp32"
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert complaints == []


def test_the_figures_are_those_that_prometheus_would_compute(
    browser: "webdriver.Chrome", service: ServiceProcess
) -> None:
    browser.get(service.url)
    first, second = (
        f"""
        # HELP lensmith_requests_total With "quotes" and {{braces}}.
        lensmith_model_info{{engine="onnx{{run}}time",name="a \\\\ \\"b\\"\\nc",precision="fp32",version="1"}} 1.0
        lensmith_model_info{{engine="e",name="gone",precision="fp32",version="0"}} 0.0
        lensmith_requests_total{{route="/predict",status="200",version="1"}} {10 + 90 * step}
        lensmith_requests_total{{route="/predict/batch",status="500",version="1"}} {5 * step}
        lensmith_requests_total{{route="/v2/models/{{name}}/infer",status="503",version="1"}} {5 * step}
        lensmith_requests_total{{route="/metrics",status="200",version="1"}} {1000 * step}
        lensmith_requests_total{{route="/v2/health/live",status="200",version="1"}} {1000 * step}
        lensmith_shed_total{{reason="overloaded"}} {3 * step}
        lensmith_shed_total{{reason="expired"}} {2 * step}
        lensmith_answers_total{{label="cat",version="1"}} {90 * step}
        lensmith_request_seconds_bucket{{le="0.01",route="/predict"}} {40 * step}
        lensmith_request_seconds_bucket{{le="0.05",route="/predict"}} {90 * step}
        lensmith_request_seconds_bucket{{le="+Inf",route="/predict"}} {100 * step}
        lensmith_request_seconds_bucket{{le="+Inf",route="/model"}} {900 * step}
        lensmith_images_running 2.0
        lensmith_images_queued 3.0
        """.replace("\n        ", "\n")
        for step in (0, 1)
    )
    script = """
        const [first, second, done] = arguments;
        import(new URL("console/figures.js", document.baseURI)).then(({ figures, inWindow, reading }) => {
            const one = inWindow([], reading(first, 1000));
            const two = inWindow(one, reading(second, 11000));
            const restarted = inWindow(two, reading(first, 13000));
            const late = inWindow(two, reading(second, 60000));
            done({ alone: figures(one), both: figures(two), kept: [two.length, restarted.length, late.length] });
        });
    """
    browser.set_script_timeout(10)
    found: dict[str, Any] = browser.execute_async_script(script, first, second)
    both = found["both"]
    assert both["requests"] == 100
    assert both["perSecond"] == pytest.approx(10)
    assert both["errors"] == pytest.approx(0.05)  # the 503 is a refusal
    assert both["shed"] == pytest.approx(0.5)
    assert both["p50"] == pytest.approx(0.01 + 0.04 * 10 / 50)
    assert both["p99"] == pytest.approx(0.05)  # in the last bucket: the highest finite bound, as histogram_quantile
    assert both["underWay"] == 5
    assert [(each["name"], each["engine"], each["perSecond"]) for each in both["served"]] == [
        ('a \\ "b"\nc', "onnx{run}time", pytest.approx(9))
    ]
    assert found["alone"]["perSecond"] is None
    # A service that begins anew counts from 0; and a page that was hidden knows nothing of the time between.
    assert found["kept"] == [2, 1, 1]


def test_a_hidden_page_asks_for_nothing(browser: "webdriver.Chrome", service: ServiceProcess) -> None:
    browser.get(service.url)
    wait_for_state(browser, "live", "shown")
    hide = (
        "Object.defineProperty(document, 'hidden', { value: arguments[0], configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange'));"
    )
    list(requested_urls(browser))
    browser.execute_script(hide, True)
    time.sleep(5)
    assert len(list(requested_urls(browser))) <= 1  # one may have been just about to be sent
    browser.execute_script(hide, False)
    WebDriverWait(browser, 10).until(lambda page: any(url.endswith("/metrics") for url in requested_urls(page)))


def test_under_a_path_and_without_metrics_the_page_works_on(
    browser: "webdriver.Chrome", service: ServiceProcess, colours: Path
) -> None:
    with proxy(service.url, "/shop/eyes", hidden={"/metrics"}) as url:
        browser.get(url + "/")
        wait_for_model(browser)
        live = browser.find_element(By.ID, "live")
        WebDriverWait(browser, 10).until(lambda _: live.get_attribute("data-state") == "missing")
        assert live.text.split("\n")[1].startswith("No live figures: the metrics of this service are on another port")
        assert not browser.find_element(By.ID, "tiles").is_displayed()
        upload(browser, colours / "red" / "001.jpg", "found")
        assert answered(browser) == "red"
        assert browser.find_element(By.ID, "command").text.endswith(f"{url}/predict")
        assert {urlsplit(each).port for each in requested_urls(browser)} == {urlsplit(url).port}


def test_a_refusal_is_told_in_plain_words_and_the_picture_sent_again_when_its_time_has_come(
    browser: "webdriver.Chrome", service: ServiceProcess, colours: Path
) -> None:
    refusals = [(503, None), (429, "2")]  # of something in between, in HTML
    with proxy(service.url, "", refusals=refusals) as url:
        browser.get(url)
        wait_for_model(browser)
        title, again = (browser.find_element(By.ID, name) for name in ("failed-title", "again"))
        upload(browser, colours / "red" / "001.jpg", "failed")
        assert title.text == "The service is busy"
        assert again.text == "Send again"

        again.click()
        WebDriverWait(browser, 10).until(lambda _: title.text == "Too many pictures in a short time")
        assert "Nothing is wrong with the picture" in browser.find_element(By.ID, "failed-detail").text
        WebDriverWait(browser, 10).until(lambda _: again.is_enabled() and again.text == "Send again")
        again.click()
        wait_for_answer(browser, "red")


def test_a_used_up_quota_counts_down(browser: "webdriver.Chrome", colour_bundle: Bundle, colours: Path) -> None:
    with start_service(colour_bundle.path, quota="1/day") as service:
        browser.get(service.url)
        upload(browser, colours / "red" / "001.jpg", "found")
        upload(browser, colours / "blue" / "001.jpg", "failed")
        assert browser.find_element(By.ID, "failed-title").text == "The caller's quota is used up"
        again = browser.find_element(By.ID, "again")
        assert again.text.startswith("Send again in ")
        assert not again.is_enabled()


def test_a_service_that_is_gone_is_told_and_found_again(
    browser: "webdriver.Chrome", colour_bundle: Bundle, colours: Path
) -> None:
    with start_service(colour_bundle.path) as service:
        browser.get(service.url)
        wait_for_model(browser)
    upload(browser, colours / "red" / "001.jpg", "failed")
    assert browser.find_element(By.ID, "failed-title").text == "The service cannot be reached"
    live = browser.find_element(By.ID, "live")
    WebDriverWait(browser, 10).until(lambda _: live.get_attribute("data-state") == "missing")
    with start_service(colour_bundle.path, port=urlsplit(service.url).port):
        WebDriverWait(browser, 20).until(lambda _: live.get_attribute("data-state") == "shown")
        browser.find_element(By.ID, "again").click()
        wait_for_answer(browser, "red")


def test_a_token_is_asked_for_where_one_is_needed_and_kept_for_the_tab(
    browser: "webdriver.Chrome", colour_bundle: Bundle, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
    with start_service(colour_bundle.path) as service:
        browser.get(service.url)
        form, field, said = (browser.find_element(By.ID, name) for name in ("access", "token", "access-message"))
        WebDriverWait(browser, 10).until(lambda _: form.is_displayed())
        assert said.text == "This service answers those who have a token."
        assert field.get_attribute("type") == "password"
        assert field.accessible_name == "Token"
        upload(browser, colours / "red" / "001.jpg", "failed")
        assert browser.find_element(By.ID, "failed-title").text == "A token is needed"

        for wrong, words in (
            ("two words", "A token has letters, digits, dashes and dots, and no spaces."),
            ("not.a.token", "This service does not take the token: it may have expired. Give another one."),
            (token(scope="admin"), "The token is valid, but not for predictions. Give another one."),
        ):
            field.clear()
            field.send_keys(wrong, Keys.ENTER)
            WebDriverWait(browser, 10).until(lambda _, words=words: said.text == words)
            assert field.get_attribute("aria-invalid") == "true"

        # The right one: the picture that waited is answered.
        field.clear()
        field.send_keys(f"Bearer {token(scope='predict')}", Keys.ENTER)
        wait_for_answer(browser, "red")
        assert not form.is_displayed()
        assert "colours" in browser.find_element(By.ID, "model").text
        assert "Bearer $TOKEN" in browser.find_element(By.ID, "command").text
        stored = browser.execute_script("return [localStorage.length, sessionStorage.length, document.cookie]")
        assert stored == [0, 1, ""]
        assert field.get_attribute("value") == ""

        browser.refresh()
        wait_for_model(browser)
        browser.find_element(By.ID, "forget").click()
        WebDriverWait(browser, 10).until(lambda page: page.find_element(By.ID, "access").is_displayed())
        assert not browser.find_element(By.ID, "known").is_displayed()
        assert browser.execute_script("return sessionStorage.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_and_axe_finds_nothing_to_complain_of(
    browser: "webdriver.Chrome", service: ServiceProcess, between: Path, colours: Path, scheme: str, broken: Path
) -> None:
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(service.url)
    wait_for_model(browser)
    live = browser.find_element(By.ID, "live")
    WebDriverWait(browser, 10).until(lambda _: live.get_attribute("data-state") == "shown")
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background.strip("rgb()").split(", "))) < 380) == (scheme == "dark")
    require_readable(browser)
    upload(browser, colours / "red" / "001.jpg", "found")
    require_readable(browser)
    browser.find_element(By.ID, "wrong").click()
    browser.find_element(By.ID, "true-label").send_keys("crimson", Keys.ENTER)
    note = browser.find_element(By.ID, "verdict-note")
    WebDriverWait(browser, 10).until(lambda _: note.text)
    require_readable(browser)
    files = "\n".join(map(str, (between, broken, colours / "blue" / "001.jpg")))
    browser.find_element(By.ID, "file").send_keys(files)
    wait_for_text(browser, "gallery-count", "2 answered, 1 not")
    assert browser.find_element(By.ID, "unsure").is_displayed()
    require_readable(browser)
    browser.find_elements(By.CSS_SELECTOR, ".thumb")[1].click()
    # And what is seldom seen: the token, its refusal, a countdown, a figure beyond its limit.
    browser.execute_script(
        "for (const name of ['access', 'known', 'again']) document.getElementById(name).hidden = false;"
        "document.getElementById('access-message').textContent = 'This service does not take the token.';"
        "document.getElementById('token').setAttribute('aria-invalid', 'true');"
        "document.getElementById('again').disabled = true;"
        "for (const tile of document.querySelectorAll('.tile')) tile.classList.add('over');"
    )
    require_readable(browser)
    browser.execute_script("document.getElementById('live').dataset.state = 'missing'")
    require_readable(browser)


def test_nothing_is_cut_off_however_wide_the_screen(
    browser: "webdriver.Chrome", remake: Callable[..., Bundle], colours: Path
) -> None:
    bundle = remake("long", version="a-version-with-a-name-that-is-longer-than-a-telephone-is-wide")
    with start_service(bundle.path) as service:
        browser.get(service.url)
        wait_for_state(browser, "live", "shown")
        files = [colours / label / "001.jpg" for label in ("green", "red", "blue")]
        browser.find_element(By.ID, "file").send_keys("\n".join(map(str, files)))
        wait_for_text(browser, "gallery-count", "3 answered")
        for width in (1100, 768, 320):
            size = {"width": width, "height": 640, "deviceScaleFactor": 1, "mobile": width < 1000}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            beyond = browser.execute_script(
                "for (const name of ['access', 'known', 'truth']) document.getElementById(name).hidden = false;"
                "for (const each of document.querySelectorAll('.label, .thumb-label, #lead'))"
                " each.textContent = 'Grünblindenaugensehschärfenuntersuchungstafel_without_a_space_anywhere';"
                "for (const each of document.querySelectorAll('.figure b')) each.textContent = '1,234';"
                "for (const each of document.querySelectorAll('.tile dt')) each.textContent = 'Memory > 90 %';"
                "const right = (element) => element.getBoundingClientRect().right;"
                "const boxes = 'body, section, header, footer, .tile, .thumb';"
                "return [...document.querySelectorAll('body *')].filter((each) => !each.closest('.unseen, svg, #file')"
                " && right(each) > right(each.parentElement.closest(boxes)) + 0.5)"
                ".map((each) => each.outerHTML.slice(0, 80))"
            )
            assert beyond == []
            assert browser.execute_script("return Math.max(document.documentElement.scrollWidth, innerWidth)") == width


def test_the_keyboard_alone_reaches_everything_and_shows_where_it_is(
    browser: "webdriver.Chrome", service: ServiceProcess, colours: Path
) -> None:
    browser.get(service.url)
    wait_for_model(browser)
    focused = tab(browser)
    assert focused.get_attribute("id") == "file"
    assert "choose a file" in focused.accessible_name
    focused.send_keys("\n".join(str(colours / label / "001.jpg") for label in ("red", "blue")))
    wait_for_text(browser, "gallery-count", "2 answered")
    assert answered(browser) == "red"

    assert [tab(browser).text for _ in range(2)] == ["Right", "Wrong"]
    assert tab(browser).accessible_name == "red, 100.0 %, 001.jpg"
    second = tab(browser)
    second.send_keys(Keys.ENTER)
    assert answered(browser) == "blue"
    assert browser.find_element(By.ID, "summary").get_attribute("textContent") == "blue, 100.0 %"
    assert [tab(browser).text for _ in range(3)] == ["API", "Model", "Metrics"]


def requested_urls(browser: "webdriver.Chrome") -> Iterator[str]:
    """Addresses asked for over a network, from the browser's own log; chrome: and blob: ones are local."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if urlsplit(url).scheme in ("http", "https", "ws", "wss"):
                yield url


def wait_for_model(browser: "webdriver.Chrome") -> None:
    """Wait until the page knows what is served."""
    WebDriverWait(browser, 10).until(lambda page: page.find_element(By.ID, "model").text != "")


def wait_for_answer(browser: "webdriver.Chrome", label: str) -> None:
    """Wait until the page shows an answer, with this label first."""
    WebDriverWait(browser, 10).until(lambda page: page.find_element(By.ID, "summary").text != "")
    assert answered(browser) == label


def answered(browser: "webdriver.Chrome") -> str:
    """The label that the page shows first."""
    return str(browser.find_element(By.CSS_SELECTOR, "#ranking .label").text)


def tab(browser: "webdriver.Chrome") -> Any:
    """Press the tabulator; what has the focus then, which the page must show."""
    ActionChains(browser).send_keys(Keys.TAB).perform()
    focused = browser.switch_to.active_element
    outline = browser.execute_script(
        "return getComputedStyle(arguments[0].id === 'file' ? arguments[0].parentElement : arguments[0]).outlineStyle",
        focused,
    )
    assert outline == "solid"
    return focused


@contextmanager
def proxy(
    to: str, below: str, hidden: set[str] | None = None, refusals: list[tuple[int, str | None]] | None = None
) -> Iterator[str]:
    """A proxy that has the service `to` under the path `below`.

    Some paths are `hidden`; and the first requests for predictions get `refusals`, each a status and a Retry-After.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = [f"Content-Type: {self.headers['Content-Type']}"] if body else []
            path = self.path.removeprefix(below)
            if not self.path.startswith(below) or path in (hidden or ()):
                return self._answer(404, {"Content-Type": "text/html"}, b"<h1>Not found</h1>")
            if refusals and path.startswith("/predict"):
                status, retry_after = refusals.pop(0)
                retry = {"Retry-After": retry_after} if retry_after else {}
                return self._answer(status, {"Content-Type": "text/html", **retry}, b"<h1>No</h1>")
            return self._answer(*ask(to, path, body or None, *kind))

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{below}"
        finally:
            server.shutdown()
            thread.join()
