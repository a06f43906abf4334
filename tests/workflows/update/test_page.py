"""The page tells what became right and wrong, in one file that asks for nothing else."""

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lensmith.curation.label_summary import LabelSummary
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import RunError
from lensmith.workflows.pipeline.compared_answers import ComparedAnswers
from lensmith.workflows.pipeline.intervals import Interval
from lensmith.workflows.pipeline.predictions import ModelPredictions
from lensmith.workflows.update.page import UpdatePage, points, render, verdict


@pytest.fixture
def compared(many_colours: Path) -> ComparedAnswers:
    """72 pictures: one became right, two became wrong, one is wrong before and now."""
    files = tuple(sorted(many_colours.glob("*/*")))
    truth = np.repeat([0, 1, 2], 24)
    old, new = np.eye(3)[truth], np.eye(4)[truth]
    old[0], new[10], new[30], new[71], old[71] = (
        [0.2, 0.8, 0],
        [0.4, 0.6, 0, 0],
        [0, 0.1, 0, 0.9],
        [1, 0, 0, 0],
        [1, 0, 0],
    )
    labels = ("blue", "green", "<i>red</i>")
    return ComparedAnswers.of(ModelPredictions(labels, files, truth, new), ModelPredictions(labels, files, truth, old))


@pytest.fixture
def page(compared: ComparedAnswers, many_colours: Path) -> UpdatePage:
    samples = tuple(Sample(f"red/{name}", 2, part) for name, part in (("000.png", "train"), ("001.jpg", "test")))
    images = ImageSet(many_colours, ("blue", "green", "red"), samples)
    return UpdatePage(
        "colours", "colours@1", "run-2", passed=True, reason="", compared=compared, limits=(), notes=("A <note>.",),
        labels=LabelSummary(2, 0.5, (), (), (), (), ("Two <labels> are wrong.",), 1.0),
        new=samples, images=images, value_ranges={},
    )  # fmt: skip


def test_answers_are_compared_picture_by_picture(compared: ComparedAnswers, tmp_path: Path) -> None:
    assert compared.became_right.tolist() == [0]
    assert compared.became_wrong.tolist() == [30, 10]
    assert compared.labels[compared.new[30]] == "another class"
    assert compared.difference.value == pytest.approx(-100 / 72)
    assert compared.difference.low < -100 / 72 < compared.difference.high
    compared.save(tmp_path / "compared.npz")
    read = ComparedAnswers.read(tmp_path / "compared.npz")
    assert (read.labels, read.files) == (compared.labels, compared.files)
    assert np.array_equal(read.new_confidence, compared.new_confidence)
    (tmp_path / "compared.npz").write_bytes(b"damaged")
    with pytest.raises(RunError):
        ComparedAnswers.read(tmp_path / "compared.npz")


def test_the_page_shows_each_change_and_requests_nothing(page: UpdatePage) -> None:
    text = render(page)
    assert text.count("<figure") == 1 + 2 + 2
    assert html.escape("<i>red</i>") in text
    assert "<i>red</i>" not in text
    assert "A &lt;note&gt;." in text
    assert "Two &lt;labels&gt; are wrong." in text
    assert set(re.findall(r'(?:src|href)="([^":]*:?)', text)) == {"data:"}
    assert "default-src 'none'" in text
    assert all('alt=""' not in image and "alt=" in image for image in re.findall(r"<img[^>]*>", text))
    assert "No difference between the two is shown." in text


def test_a_refusal_is_named(page: UpdatePage) -> None:
    text = render(replace(page, passed=False, reason="recall of red is 3 %."))
    assert "The gate refuses it" in text
    assert "recall of red is 3 %." in text


@pytest.mark.parametrize(
    ("ends", "word"), [((0.5, 2.0), "better"), ((-2.0, -0.5), "worse"), ((-1.0, 1.0), "No difference")]
)
def test_the_verdict_is_that_of_the_interval(ends: tuple[float, float], word: str) -> None:
    assert word in verdict(Interval(sum(ends) / 2, *ends))


def test_points_have_a_sign() -> None:
    assert [points(value) for value in (1.25, -1.25, 0.0)] == ["+1.2", "−1.2", "+0.0"]
