"""The report is one file that asks nobody for anything, and holds for two classes and for many."""

import base64
import io
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lensmith.bundle.format import Abstention, EngineRecord
from lensmith.evaluation.confidence import TemperatureScaling
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.metrics import measure
from lensmith.evaluation.report import (
    CHANGED,
    LEAST_CONFIDENT,
    MISTAKES,
    SelectionReport,
    render,
    write_report,
)

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; refuses a tag that is closed out of order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def values(self, wanted: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == wanted]


def evaluation(folder: Path, labels: tuple[str, ...], count: int = 200) -> Evaluation:
    """Random answers, a third of them wrong, on one picture."""
    folder.mkdir(exist_ok=True)
    file = folder / "a picture.png"
    Image.linear_gradient("L").resize((300, 200)).save(file)
    random = np.random.default_rng(3)
    truth = random.integers(0, len(labels), count)
    logits = random.normal(0, 1, (count, len(labels))) + 5 * np.eye(len(labels))[truth]
    wrong = random.random(count) < 1 / 3
    logits[wrong] = np.roll(logits[wrong], 1, axis=1)
    exponentials = np.exp(logits)
    probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return Evaluation(
        bundle="flowers 3", engine="onnxruntime", precision="fp32", data=folder, part="test", fingerprint="ab" * 32,
        labels=labels, metrics=measure(truth, probabilities), files=(file,) * count, truth=truth,
        probabilities=probabilities, unreadable=(("test/rose/x.jpg", "It is empty."),), images_per_second=412.0,
        latency_ms=4.3, seconds=1.0, created=datetime(2026, 1, 2, tzinfo=UTC), versions={"numpy": "2.0"},
    )  # fmt: skip


def selection(labels: tuple[str, ...], changed: int = 3, scaling: TemperatureScaling | None = None) -> SelectionReport:
    """Three engines, of which one could not be made; `changed` images, PyTorch surest of the last."""
    return SelectionReport(
        engines=(
            EngineRecord(
                engine="openvino", precision="int8", graph="x", method="mixed <preset>", kept=("<head>", *"abcdef"),
                accuracy=0.91234, drop=0.25, agreement=0.987, latency_ms=1.94, images_per_second=1812.3,
                memory_bytes=81_000_000, load_s=0.42, bytes=3_900_000, pareto=True, chosen=True, why="the <fastest>",
            ),
            EngineRecord(
                engine="onnxruntime", precision="fp32", graph="model.onnx", accuracy=0.9148, drop=0.0, agreement=1.0,
                latency_ms=4.6, images_per_second=262.0, bytes=13_600_000, pareto=True, why="14% of its speed",
            ),
            EngineRecord(engine="onnxruntime-cuda", precision="fp16", graph=None, why="no GPU here"),
        ),
        scaling=scaling,
        changed=tuple((i, labels[i % len(labels)], i / 100) for i in range(changed)),
        per_class_change_pp=(-1.5, None, *[0.0] * (len(labels) - 2)),
        images=200,
        max_drop_pp=0.5,
    )  # fmt: skip


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {number:03d}" for number in range(count))


@pytest.mark.parametrize("classes", [2, 10, 31, 1000])
def test_the_report_is_whole_for_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    found = evaluation(tmp_path, names(classes))
    page = Page(render(found))
    assert f"{100 * found.metrics.accuracy:.1f} %" in page.text
    assert all(label in page.text for label in found.labels)
    assert ("top 5" in page.text.lower()) == (classes > 5)
    assert "test/rose/x.jpg" in page.text
    assert found.fingerprint in page.text


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("classes", [3, 120])
def test_nothing_is_fetched_from_anywhere(tmp_path: Path, classes: int, exported: bool) -> None:
    html = render(evaluation(tmp_path, names(classes)), selection(names(classes)) if exported else None)
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert page.values("src")
    assert all(source.startswith("data:image/") for source in page.values("src"))
    assert page.values("href") == []
    assert "url(" not in html
    assert "@import" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in " ".join(page.values("content"))


@pytest.mark.parametrize("classes", [2, 40])
def test_names_from_outside_are_only_text(tmp_path: Path, classes: int) -> None:
    evil = ('"><script>alert(1)</script>', "<img src=http://evil.example/x>", *names(classes - 2))
    found = evaluation(tmp_path / "<b>folder", evil)
    page = Page(render(replace(found, unreadable=(("<script>f</script>.jpg", "<i>"),), notes=("<script>n</script>",))))
    assert "script" not in page.tags
    assert all(source.startswith("data:image/") for source in page.values("src"))
    assert '"><script>alert(1)</script>' in page.text


def test_a_small_confusion_matrix_is_a_table_with_its_numbers(tmp_path: Path) -> None:
    found = evaluation(tmp_path, names(4))
    html = render(found)
    table = html[html.index('class="heat') :].partition("</table>")[0]
    cells = [int(part.partition("<")[0].rpartition(">")[2]) for part in table.split("<td")[1:]]
    assert cells == found.metrics.confusion.flatten().tolist()


@pytest.mark.parametrize(("classes", "side"), [(31, 31), (541, 271)])
def test_a_large_confusion_matrix_is_a_picture_with_the_diagonal_in_it(tmp_path: Path, classes: int, side: int) -> None:
    source = next(s for s in Page(render(evaluation(tmp_path, names(classes)))).values("src") if "image/png" in s)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
    assert picture.shape == (side, side, 4)
    diagonal = picture[np.arange(side), np.arange(side)]
    assert (diagonal[:, 1] > diagonal[:, 0]).all()
    assert diagonal[:, 3].any()


def test_the_pictures_shown_are_small_and_counted(tmp_path: Path) -> None:
    found = evaluation(tmp_path, names(3))
    sources = [source for source in Page(render(found)).values("src") if "image/jpeg" in source]
    assert len(sources) == MISTAKES + LEAST_CONFIDENT
    thumbnail = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert thumbnail.size == (160, 107)
    assert len(sources[0]) < 20_000


def test_a_report_without_a_mistake_says_so(tmp_path: Path) -> None:
    found = evaluation(tmp_path, names(3))
    perfect = np.eye(3, dtype=np.float32)[found.truth]
    html = render(replace(found, probabilities=perfect, metrics=measure(found.truth, perfect), unreadable=()))
    assert "every image was classified as it is labelled" in Page(html).text
    assert "Unreadable" not in html
    assert "Engines" not in html  # that section is of exports


# What an export adds


@pytest.mark.parametrize("classes", [2, 40])
def test_every_engine_is_in_the_table_with_its_numbers_and_its_reason(tmp_path: Path, classes: int) -> None:
    html = render(evaluation(tmp_path, names(classes)), selection(names(classes)))
    text = Page(html).text
    for shown in ("91.23 %", "98.70 %", "1.9", "1,812.3", "3.9", "81", "0.42", "the <fastest>", "mixed <preset>"):
        assert shown in text
    assert "no GPU here" in text
    assert "<head>, a, b, c" in text
    assert "and 3 more layers" in text
    rows = html.partition('class="engines"')[2].partition("</table>")[0].split("<tr")[2:]
    assert ["chosen" in row for row in rows] == [True, False, False]
    assert [">front<" in row for row in rows] == [False, True, False]


def test_the_picture_of_the_engines_names_the_chosen_one_and_marks_the_front(tmp_path: Path) -> None:
    html = render(evaluation(tmp_path, names(3)), selection(names(3)))
    picture = html.partition('<svg class="scatter"')[2].partition("</svg>")[0]
    assert picture.count('class="engine front') == 2
    assert picture.count('class="engine front chosen"') == 1
    assert ">openvino-int8</text>" in picture
    assert 'class="ideal"' in picture  # the limit
    alone = replace(selection(names(3)), engines=selection(names(3)).engines[:1])
    assert 'class="scatter"' not in render(evaluation(tmp_path, names(3)), alone)


def test_the_images_whose_answer_changed_are_shown_those_pytorch_was_surest_of_first(tmp_path: Path) -> None:
    found = evaluation(tmp_path, names(3))
    html = render(found, selection(names(3), changed=CHANGED + 6))
    text = Page(html).text
    section = html.partition("Answers that changed against PyTorch</h2>")[2].partition("</section>")[0]
    assert section.count("<figure") == CHANGED
    assert "margin 0.290" in section.partition("</figure>")[0]
    last = found.probabilities[CHANGED + 5].argmax()
    assert f"now: {found.labels[last]}" in section.partition("</figure>")[0]
    assert "30 of 200 images get another class" in text
    assert "a picture.png" in section
    assert "class 000−1.5" in "".join(Page(section.partition("<tbody>")[2].partition("</tbody>")[0]).text.split("\n"))
    assert "class 001" not in section.partition("<tbody>")[2]  # it has no image
    same = replace(selection(names(3), changed=0), per_class_change_pp=(0.0, 0.0, None))
    assert "None: all 200 images get PyTorch's class." in Page(render(found, same)).text


def test_a_temperature_is_told_with_the_errors_before_and_after(tmp_path: Path) -> None:
    scaling = TemperatureScaling(1.4213, 0.0852, 0.0123, 0.5317, 0.4321, 1234, 0.0)
    text = Page(render(evaluation(tmp_path, names(3)), selection(names(3), scaling=scaling))).text
    for shown in ("divided by 1.421, fitted to 1,234 images", "8.52 %", "1.23 %", "0.5317", "0.4321"):
        assert shown in text
    kept = replace(scaling, temperature=1.0)
    assert "so it stays 1" in Page(render(evaluation(tmp_path, names(3)), selection(names(3), scaling=kept))).text
    assert "Temperature" not in Page(render(evaluation(tmp_path, names(3)), selection(names(3)))).text


def test_a_threshold_is_told_with_what_it_does_here(tmp_path: Path) -> None:
    found = evaluation(tmp_path, names(3))
    abstaining = replace(found, abstention=Abstention(threshold=0.9, wanted=0.95, precision=0.96, coverage=0.8))
    html = render(abstaining)
    answered = abstaining.answered
    assert f"it answers {100 * answered.coverage:.1f} % of the images" in Page(html).text
    assert f"{100 * answered.precision:.1f} % of those answers are correct; 95 % were wanted" in Page(html).text
    assert html.count('<line class="threshold"') == 2
    nothing = replace(found, abstention=Abstention(threshold=1.0, wanted=1.0, precision=1.0, coverage=0.1))
    assert "it answers 0.0 % of the images; 100 % were wanted" in Page(render(nothing)).text
    assert 'class="threshold"' not in render(found)


def test_a_failed_report_leaves_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    found = evaluation(tmp_path, names(3))
    (tmp_path / "a picture.png").unlink()
    with pytest.raises(Exception, match="No such file"):
        write_report(found, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]
