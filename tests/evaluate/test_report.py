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

from lensmith.evaluate.evaluation import Evaluation
from lensmith.evaluate.metrics import measure
from lensmith.evaluate.report import LEAST_SURE, MISTAKES, render, write_report

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
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

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


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {number:03d}" for number in range(count))


@pytest.mark.parametrize("classes", [2, 10, 31, 120, 1000])
def test_the_report_is_whole_for_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    found = evaluation(tmp_path, names(classes))
    page = Page(render(found))
    assert f"{100 * found.metrics.accuracy:.1f} %" in page.text
    assert all(label in page.text for label in found.labels)
    assert ("top 5" in page.text.lower()) == (classes > 5)
    assert "test/rose/x.jpg" in page.text
    assert found.fingerprint in page.text


@pytest.mark.parametrize("classes", [3, 120])
def test_nothing_is_fetched_from_anywhere(tmp_path: Path, classes: int) -> None:
    html = render(evaluation(tmp_path, names(classes)))
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


@pytest.mark.parametrize(("classes", "side"), [(31, 31), (540, 540), (541, 271), (1000, 500)])
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
    assert len(sources) == MISTAKES + LEAST_SURE
    thumbnail = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert thumbnail.size == (160, 107)
    assert len(sources[0]) < 20_000


def test_a_report_without_a_mistake_says_so(tmp_path: Path) -> None:
    found = evaluation(tmp_path, names(3))
    perfect = np.eye(3, dtype=np.float32)[found.truth]
    html = render(replace(found, probabilities=perfect, metrics=measure(found.truth, perfect), unreadable=()))
    assert "every image was classified as it is labelled" in Page(html).text
    assert "Unreadable" not in html


def test_a_failed_report_leaves_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    found = evaluation(tmp_path, names(3))
    (tmp_path / "a picture.png").unlink()
    with pytest.raises(Exception, match="No such file"):
        write_report(found, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]
