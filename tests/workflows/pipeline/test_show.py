"""The state of a pipeline without running it, and its flowchart."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lensmith import api
from lensmith.errors import OutputError, RunError
from lensmith.workflows.pipeline.plan import STAGES
from lensmith.workflows.pipeline.run import PipelineResult, StageResult
from lensmith.workflows.pipeline.show import duration, mermaid

OFF = {"register": False, "rollout": False, "gate": False}


def states(ran: PipelineResult) -> dict[str, str]:
    return {outcome.stage: outcome.state for outcome in ran.stages}


@pytest.fixture
def file(workspace: Path, parted: Callable[..., Path], written: Callable[..., Path]) -> Path:
    parted(workspace / "data")
    return written(**OFF)


def test_before_the_first_run_all_is_to_do(file: Path) -> None:
    found = states(api.show_pipeline(file))
    assert found == {
        **dict.fromkeys(STAGES, "to do"), "export": "off", "gate": "off", "register": "off", "rollout": "off",
    }  # fmt: skip


def test_what_a_run_would_do_is_distinguished_from_what_was_done(
    file: Path, written: Callable[..., Path], workspace: Path
) -> None:
    api.pipeline(file, until="split")
    assert [states(api.show_pipeline(file))[name] for name in ("check", "split", "train")] == ["done", "done", "to do"]
    changed = states(api.show_pipeline(written(split={"seed": 1}, **OFF)))
    assert [changed[name] for name in ("check", "split", "train")] == ["done", "to do", "to do"]
    folder = api.show_pipeline(workspace / "runs/pipelines/colours")
    assert [states(folder)[name] for name in ("check", "split", "train")] == ["done", "done", "to do"]


def test_a_failed_stage_is_shown_with_its_number(file: Path, workspace: Path, written: Callable[..., Path]) -> None:
    for place in range(4):
        (workspace / f"data/train/red/broken-{place}.png").write_bytes(b"x")
    api.pipeline(file)
    for shown in (api.show_pipeline(file), api.show_pipeline(workspace / "runs/pipelines/colours")):
        assert shown.stages[0].state == "failed"
        assert "% of the images cannot be read" in shown.stages[0].message


def test_a_folder_without_a_pipeline_and_a_picture_of_another_kind_are_refused(file: Path, workspace: Path) -> None:
    with pytest.raises(RunError, match=r"state\.json"):
        api.show_pipeline(workspace / "data")
    with pytest.raises(OutputError) as refused:
        api.show_pipeline(file, out=workspace / "flow.svg")
    assert "flow.svg" in str(refused.value)


def test_the_flowchart_has_each_stage_with_its_state(file: Path, workspace: Path) -> None:
    api.pipeline(file, until="check")
    api.show_pipeline(file, out=workspace / "charts/flow.mmd")
    chart = (workspace / "charts/flow.mmd").read_text()
    assert "flowchart LR\n" in chart
    assert 'check["check data<br/>done, ' in chart
    assert 'gate["gate<br/>off"]:::off' in chart
    assert " --> ".join(STAGES) in chart
    api.show_pipeline(file, out=workspace / "flow.md")
    assert (workspace / "flow.md").read_text() == f"```mermaid\n{chart}```\n"


@pytest.mark.parametrize("message", ["", "<b>&\"'#`;", "a" * 500, "word " * 200, "two\nlines"])
def test_any_message_stays_inside_its_label(message: str) -> None:
    stages = [StageResult(name, "to do", "0" * 16, 7212.0, message) for name in STAGES]
    chart = mermaid(PipelineResult('x & "y"', Path("x"), Path("x"), stages, "2027-01-01T00:00:00+00:00"))
    labels = re.findall(r'^    \w+\["([^"<>`]*(?:<br/>[^"<>`]*)*)"\]:::to_do$', chart, re.MULTILINE)
    assert len(labels) == len(STAGES)
    assert max(len(label) for label in labels) < 200


def test_durations_have_readable_units() -> None:
    assert [duration(each) for each in (0.44, 59.0, 200.2, 7500.0)] == ["0.4 s", "59.0 s", "3 min 20 s", "2 h 5 min"]
