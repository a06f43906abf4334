"""What is shown of a pipeline without running it, and its picture."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith import api
from lensmith.errors import OutputError, RunError
from lensmith.workflows.pipeline.flow import seconds, svg
from lensmith.workflows.pipeline.plan import STAGES
from lensmith.workflows.pipeline.run import Outcome, Ran

OFF = {"register": False, "rollout": False, "gate": False}


def states(ran: Ran) -> dict[str, str]:
    return {outcome.stage: outcome.state for outcome in ran.stages}


@pytest.fixture
def file(workspace: Path, parted: Callable[..., Path], written: Callable[..., Path]) -> Path:
    parted(workspace / "data")
    return written(**OFF)


def test_before_the_first_run_all_is_to_do(file: Path) -> None:
    found = states(api.pipeline_show(file))
    assert found == {
        **dict.fromkeys(STAGES, "to do"), "export": "off", "gate": "off", "register": "off", "rollout": "off",
    }  # fmt: skip


def test_what_a_run_would_do_is_told_from_what_was_done(
    file: Path, written: Callable[..., Path], workspace: Path
) -> None:
    api.pipeline(file, until="split")
    assert [states(api.pipeline_show(file))[name] for name in ("check", "split", "train")] == ["done", "done", "to do"]
    changed = states(api.pipeline_show(written(split={"seed": 1}, **OFF)))
    assert [changed[name] for name in ("check", "split", "train")] == ["done", "to do", "to do"]
    folder = api.pipeline_show(workspace / "runs/pipelines/colours")
    assert [states(folder)[name] for name in ("check", "split", "train")] == ["done", "done", "to do"]


def test_a_failed_stage_is_shown_with_its_number(file: Path, workspace: Path, written: Callable[..., Path]) -> None:
    for place in range(4):
        (workspace / f"data/train/red/broken-{place}.png").write_bytes(b"x")
    api.pipeline(file)
    for shown in (api.pipeline_show(file), api.pipeline_show(workspace / "runs/pipelines/colours")):
        assert shown.stages[0].state == "failed"
        assert "% of the images cannot be read" in shown.stages[0].said


def test_a_folder_without_a_pipeline_and_a_picture_of_another_kind_are_refused(file: Path, workspace: Path) -> None:
    with pytest.raises(RunError, match=r"holds no state\.json"):
        api.pipeline_show(workspace / "data")
    with pytest.raises(OutputError, match=r"FILE\.svg or FILE\.html"):
        api.pipeline_show(file, out=workspace / "flow.gif")


def test_the_picture_is_xml_and_shows_each_stage(file: Path, workspace: Path) -> None:
    api.pipeline_show(file, out=workspace / "flow.svg")
    tree = ElementTree.fromstring((workspace / "flow.svg").read_text())
    words = {text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {"check data", "split", "train", "evaluate", "export", "gate", "register", "roll out"} <= words
    api.pipeline_show(file, out=workspace / "flow.html")
    assert (workspace / "flow.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("said", ["", "<b>&\"'", "a" * 500, "word " * 200])
def test_whatever_a_stage_says_fits_into_its_box(said: str) -> None:
    stages: list[Any] = [Outcome(name, "failed", "0" * 16, 7212.0, said) for name in STAGES]
    drawn = ElementTree.fromstring(svg(Ran("x & y", Path("x"), Path("x"), stages, "2027-01-01T00:00:00+00:00")))
    lines = [text.text or "" for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert len(lines) <= 1 + 8 * (4 + 4)
    assert max(len(line) for line in lines[1:]) <= 35


def test_durations_are_said_in_words() -> None:
    assert [seconds(each) for each in (0.44, 59.0, 200.2, 7500.0)] == ["0.4 s", "59.0 s", "3 min 20 s", "2 h 5 min"]
