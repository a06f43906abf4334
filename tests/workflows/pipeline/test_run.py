"""Which stages run, which are unchanged, and how a run that failed or was killed is resumed."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from PIL import Image

from lensmith import api
from lensmith.bundle.format import MANIFEST
from lensmith.core.files import sha256
from lensmith.data.groups import across_parts
from lensmith.data.scan import scan
from lensmith.errors import GateError, RolloutError, RunError, SettingsError
from lensmith.exporting.export import export
from lensmith.training.signals import RunInterruptedError
from lensmith.workflows.pipeline import folder as folder_of
from lensmith.workflows.pipeline import run as running
from lensmith.workflows.pipeline.plan import STAGES, PipelinePlan
from lensmith.workflows.pipeline.run import PipelineResult
from lensmith.workflows.pipeline.stages import NO_TEST_PART

OFF = {"register": False, "rollout": False}
NO_LATENCY = {"latency_ratio": None}


def states(ran: PipelineResult) -> dict[str, str]:
    return {outcome.stage: outcome.state for outcome in ran.stages}


def redone(ran: PipelineResult) -> set[str]:
    return {outcome.stage for outcome in ran.stages if outcome.state == "done"}


@pytest.fixture
def quick_stages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stages that only leave the files which the next ones look for; `fail` holds what one raises in place of that."""
    fail: dict[str, BaseException] = {}

    def stage(name: str) -> Callable[[PipelinePlan], dict[str, Any]]:
        def work(plan: PipelinePlan) -> dict[str, Any]:
            if name in fail:
                raise fail[name]
            for file in (plan.main_output(name), plan.run_folder / "bundle/bundle.json" if name == "train" else None):
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(name)
            return {"said": f"{name} did it", "champion_content": None}

        return work

    monkeypatch.setattr(running, "STAGE_FUNCTIONS", {name: stage(name) for name in STAGES})
    return fail


@pytest.fixture
def pipeline(
    workspace: Path, parted: Callable[..., Path], written: Callable[..., Path]
) -> Iterator[Callable[..., Path]]:
    parted(workspace / "data")
    return lambda **sections: written(**{"export": {}, **OFF, **sections})


def test_a_second_run_does_nothing(pipeline: Callable[..., Path], quick_stages: Any) -> None:
    first = api.pipeline(pipeline())
    assert states(first) == {**dict.fromkeys(STAGES, "done"), "register": "off", "rollout": "off"}
    second = api.pipeline(pipeline())
    assert states(second) == {**dict.fromkeys(STAGES, "unchanged"), "register": "off", "rollout": "off"}
    assert [each.message for each in second.stages] == [each.message for each in first.stages]


def test_only_what_depends_on_a_change_is_repeated(pipeline: Callable[..., Path], quick_stages: Any) -> None:
    api.pipeline(pipeline())
    assert redone(api.pipeline(pipeline(gate={"min_accuracy": 0.5}))) == {"gate"}
    assert redone(api.pipeline(pipeline())) == set()  # what came of it before is still there
    assert redone(api.pipeline(pipeline(export={"target": "gpu"}))) == {"export", "gate"}
    assert redone(api.pipeline(pipeline(split={"seed": 3}))) == {"split", "train", "evaluate", "export", "gate"}


def test_a_forced_stage_repeats_those_that_depend_on_it(pipeline: Callable[..., Path], quick_stages: Any) -> None:
    api.pipeline(pipeline())
    assert redone(api.pipeline(pipeline(), force="export")) == {"export", "gate"}
    assert redone(api.pipeline(pipeline(), force="train")) == {"train", "evaluate", "export", "gate"}
    assert redone(api.pipeline(pipeline())) == set()


def test_a_run_that_died_after_a_forced_stage_repeats_the_rest(
    pipeline: Callable[..., Path], quick_stages: Any
) -> None:
    api.pipeline(pipeline())
    quick_stages["evaluate"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        api.pipeline(pipeline(), force="train")
    quick_stages.clear()
    assert redone(api.pipeline(pipeline())) == {"evaluate", "export", "gate"}


def test_sigterm_between_steps_of_a_stage_leaves_a_run_that_can_be_resumed(
    pipeline: Callable[..., Path], quick_stages: Any
) -> None:
    quick_stages["export"] = SystemExit(128 + signal.SIGTERM)  # as `core.stop_handler` raises it
    ran = api.pipeline(pipeline())
    assert states(ran)["export"] == "stopped"
    assert isinstance(ran.error, RunInterruptedError)
    assert (ran.error.exit_code, ran.error.arrived) == (75, "SIGTERM stopped it.")
    quick_stages.clear()
    assert redone(api.pipeline(pipeline())) == {"export", "gate"}


def test_images_keep_their_parts_when_others_are_added(
    workspace: Path, written: Callable[..., Path], many_colours: Path
) -> None:
    data = shutil.copytree(many_colours, workspace / "data")

    def parts(**sections: Any) -> dict[str, str | None]:
        ran = api.pipeline(written(**{"group": r"pattern:(.*/\d+)\d$", **OFF, **sections}), until="split")
        assert ran.error is None
        images = scan(ran.folder / "split" / ran.stages[1].key / "colours/splits.csv")
        assert not across_parts(images)
        assert len({sample.group for sample in images.samples}) > 3
        return {os.path.realpath(images.file(sample)): sample.part for sample in images.samples}

    before = parts()
    for label in ("blue", "green", "red"):
        for number in range(60, 75):
            Image.new("RGB", (20, 20), (number, len(label), 9)).save(data / label / f"0{number}.png")
    after = parts()
    assert len(after) == len(before) + 45
    assert before.items() <= after.items()
    assert not before.items() <= parts(split={"seed": 7}).items()
    assert parts() == after
    with pytest.raises(SettingsError, match=r"train\.group is set by the pipeline itself"):
        parts(train={"group": "auto"})


def test_it_stops_after_the_stage_that_is_named(pipeline: Callable[..., Path], quick_stages: Any) -> None:
    ran = api.pipeline(pipeline(), until="train")
    assert redone(ran) == {"check", "split", "train"}
    assert states(ran)["gate"] == "to do"
    assert redone(api.pipeline(pipeline())) == {"evaluate", "export", "gate"}
    for given in ({"until": "trian"}, {"force": "trian"}):
        with pytest.raises(SettingsError, match="check, split, train"):
            api.pipeline(pipeline(), **given)


@pytest.mark.parametrize("stage", ["check", "train", "gate"])
def test_a_failed_stage_is_recorded_and_the_next_run_resumes_there(
    stage: str, pipeline: Callable[..., Path], quick_stages: Any
) -> None:
    quick_stages[stage] = GateError("This was expected.", "That arrived.", "Mend it.")
    ran = api.pipeline(pipeline())
    assert isinstance(ran.error, GateError)
    assert states(ran)[stage] == "failed"
    before = STAGES[: STAGES.index(stage)]
    after = [name for name in STAGES[STAGES.index(stage) + 1 :] if name not in OFF]
    assert {states(ran)[name] for name in after} <= {"to do"}
    quick_stages.clear()
    assert redone(api.pipeline(pipeline())) == {"check", "split", "train", "evaluate", "export", "gate"} - set(before)


def test_what_was_removed_is_made_again(pipeline: Callable[..., Path], quick_stages: Any) -> None:
    ran = api.pipeline(pipeline())
    export = next(each for each in ran.stages if each.stage == "export")
    (ran.folder / "export" / export.key / "bundle/bundle.json").unlink()
    assert redone(api.pipeline(pipeline())) == {"export", "gate"}


def test_old_results_are_removed_but_not_the_current_one(pipeline: Callable[..., Path], quick_stages: Any) -> None:
    for seed in range(5):
        ran = api.pipeline(pipeline(split={"seed": seed}, keep=2))
    for name in ("split", "train", "gate"):
        assert len(list((ran.folder / name).iterdir())) == 2
    assert redone(api.pipeline(pipeline(split={"seed": 4}, keep=2))) == set()


def test_only_one_process_runs_a_pipeline(
    pipeline: Callable[..., Path], quick_stages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pipeline()
    folder = api.pipeline(file).folder
    monkeypatch.setattr(folder_of, "WAIT_S", 0.05)
    held = FileLock(folder / folder_of.LOCK)
    with held, pytest.raises(RunError):
        api.pipeline(file)
    assert redone(api.pipeline(file)) == set()


def test_a_damaged_record_is_ignored(pipeline: Callable[..., Path], quick_stages: Any) -> None:
    ran = api.pipeline(pipeline())
    for text in ("", "{", "[]", '{"id": 1}'):
        (ran.folder / "gate" / ran.stages[5].key / folder_of.RECORD).write_text(text)
        assert redone(api.pipeline(pipeline())) == {"gate"}


def test_the_state_is_current_during_a_run(pipeline: Callable[..., Path], quick_stages: Any) -> None:
    file, seen = pipeline(), []

    def on_progress(outcome: Any) -> None:
        if outcome.state == "running":
            seen.append(states(api.show_pipeline(Path("runs/pipelines/colours")))[outcome.stage])

    api.pipeline(file, on_progress=on_progress)
    assert seen == ["running"] * 6


@pytest.mark.slow
def test_the_whole_way_from_images_to_the_registry(
    workspace: Path, parted: Callable[..., Path], written: Callable[..., Path], many_colours: Path
) -> None:
    """A first version, nothing to do, changed settings, a new one, a worse one: each does what it must and no more."""
    parted(workspace / "data")
    ran = api.pipeline(written())
    assert ran.error is None, ran.error
    assert redone(ran) == set(STAGES) - {"export"}
    assert api.Registry().version("colours@champion").version == "1"

    assert redone(api.pipeline(written())) == set()

    changed = api.pipeline(written(rollout={"share": 50}))
    assert redone(changed) == {"rollout"}
    assert "is the champion already" in changed.stages[-1].message
    floors = api.pipeline(written(gate={"min_recall": 0.1, "latency_ratio": None}))
    assert redone(floors) == {"gate", "register", "rollout"}
    assert "version 1, which was there already" in floors.stages[-2].message

    another(many_colours / "red/000.png", workspace / "data/train/red/more.png")
    better = api.pipeline(written())
    assert better.error is None, better.error
    assert redone(better) == set(STAGES) - {"export"}
    assert better.stages[-1].values["state"] == "under way"
    assert "beside colours@1" in better.stages[5].message
    assert better.stages[5].values["held_out"]["complete"]
    assert not any("does not know" in note for note in better.stages[5].values["notes"])
    assert redone(api.pipeline(written())) == set()
    assert (better.folder / "gate" / better.stages[5].key / "gate.md").exists()

    (workspace / "data/train/red/more.png").unlink()
    another(many_colours / "blue/000.png", workspace / "data/train/blue/more.png")
    refused = api.pipeline(written())
    assert isinstance(refused.error, RolloutError)
    assert redone(refused) == set(STAGES) - {"export", "rollout"}
    api.Rollout("colours").promote(force=True)
    after = api.pipeline(written())
    # Version 2 is the champion by now, so the gate is asked again.
    assert redone(after) == {"gate", "register", "rollout"}
    assert after.stages[-1].values["rollout"] == "colours-2"
    api.Rollout("colours").abort()
    shown = api.show_pipeline(written())
    assert shown.stages[-1].values["state"] == "aborted"
    assert redone(api.pipeline(written())) == set()  # what was taken back is not tried again

    before = api.Registry().model("colours")
    worse = api.pipeline(written(gate={"max_size_mb": 0.001, **NO_LATENCY}))
    assert isinstance(worse.error, GateError)
    assert worse.error.exit_code == 3
    assert states(worse)["register"] == "to do"
    assert api.Registry().model("colours") == before


@pytest.mark.slow
def test_a_version_is_of_the_run_that_trained_it(
    workspace: Path, empty_database: Path, parted: Callable[..., Path], written: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LENSMITH_TRAIN_TRACKING", "auto")
    monkeypatch.setattr("lensmith.exporting.export.export", functools.partial(export, quick=True))
    shutil.copy(empty_database, workspace / "registry.db")
    parted(workspace / "data")
    ran = api.pipeline(written(export={}, evaluate=False, gate=False, rollout=False))
    assert ran.error is None, ran.error
    (run,) = api.tracked_runs(10)
    version = api.Registry().version("colours@1")
    assert (run.run_id, run.experiment) == (version.run, "colours")
    bundle = ran.folder / "export" / ran.stages[4].key / "bundle"
    assert version.content == sha256(bundle / MANIFEST)
    assert api.sync_runs().runs == ()


def another(picture: Path, path: Path) -> None:
    """A picture of the same class that is not in the set yet."""
    Image.open(picture).rotate(180).save(path)


@pytest.mark.slow
def test_a_killed_training_is_resumed(
    workspace: Path, parted: Callable[..., Path], written: Callable[..., Path], quick_settings: dict[str, Any]
) -> None:
    parted(workspace / "data")
    train = {**quick_settings, "epochs": 9, "patience": 9}
    file = written(train=train, evaluate=False, gate=False, **OFF)
    process = subprocess.Popen(
        [sys.executable, "-m", "lensmith", "pipeline", "run", str(file)], start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    errors: list[str] = []
    reading = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
    reading.start()
    while process.poll() is None and len(epochs(workspace)) < 2:
        time.sleep(0.02)
    assert process.poll() is None, "".join(errors)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reading.join(10)
    began = epochs(workspace)
    shown = api.show_pipeline(file)
    assert states(shown)["split"] in ("done", "unchanged")
    assert states(shown)["train"] == "stopped"

    ran = api.pipeline(file)
    assert ran.error is None, ran.error
    assert redone(ran) == {"train"}
    after = epochs(workspace)
    assert after[: len(began)] == began
    assert sorted(set(after)) == list(range(1, 10))
    assert len(after) <= 10  # the epoch that was cut short may stand there twice


def test_a_training_that_a_signal_stopped_has_not_failed(
    pipeline: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any, **said: Any) -> None:
        error = RunInterruptedError(
            "The run was to take 90 steps.", "SIGTERM stopped it.", "Go on with: train --resume"
        )
        error.exit_code = 75
        raise error

    monkeypatch.setattr("lensmith.workflows.train_and_export.train", stop)
    ran = api.pipeline(pipeline())
    assert states(ran)["train"] == "stopped"
    assert ran.error is not None
    assert (ran.error.exit_code, ran.error.remedy) == (75, "Run the pipeline again: it resumes from there.")


def epochs(workspace: Path) -> list[int]:
    """The epochs that the training's events tell of, in order."""
    found = list((workspace / "runs/pipelines/colours/train").glob("*/colours-*/events.jsonl"))
    lines = found[0].read_text().splitlines() if found else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event["epoch"] for event in events if event["event"] == "epoch"]


def test_bad_data_stops_it_before_training(
    workspace: Path, parted: Callable[..., Path], written: Callable[..., Path]
) -> None:
    data = parted(workspace / "data")
    for number in range(3):
        (data / f"train/red/broken-{number}.png").write_bytes(b"not an image")
    (data / "test/red/leak.png").write_bytes((data / "train/red/red-000.png").read_bytes())
    ran = api.pipeline(written(**OFF))
    assert states(ran)["check"] == "failed"
    assert states(ran)["train"] == "to do"
    said = str(ran.error)
    assert "3.95 %" in said
    assert "leaks, 1: train/red/red-000.png" in said or "leaks, 1: test/red/leak.png" in said
    allowed = api.pipeline(written(check={"max_unreadable": 10, "leaks": "allow"}, **OFF), until="split")
    assert allowed.error is None
    notes = allowed.stages[1].values["notes"]
    assert any("left out: 1 (test/red/leak.png is train/red/red-000.png)" in note for note in notes)
    assert allowed.stages[1].values["counts"]["test"] == 30


def test_images_without_a_test_part_are_taken_and_it_is_said_what_is_evaluated(
    workspace: Path, parted: Callable[..., Path], written: Callable[..., Path]
) -> None:
    shutil.rmtree(parted(workspace / "data") / "test")
    ran = api.pipeline(written(**OFF), until="split")
    assert ran.error is None
    assert ran.stages[1].message == "30 train, 12 val; gate and evaluate use val, on which the model is chosen"
    assert ran.stages[1].values["notes"][-1] == NO_TEST_PART


def test_every_setting_of_the_file_is_on_its_page() -> None:
    from lensmith.config.pipeline import SECTIONS, PipelineFile

    page = (Path(__file__).parents[3] / "docs/pipeline.md").read_text()
    names = [
        f"{prefix}{field.alias or name}"
        for prefix, schema in (("", PipelineFile), *((f"{section}.", cls) for section, cls in SECTIONS.items()))
        for name, field in schema.model_fields.items()
    ]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_example_is_right_but_for_its_data(workspace: Path, many_colours: Path) -> None:
    from lensmith.workflows.pipeline.plan import make_plan

    example = Path(__file__).parents[3] / "examples/pipeline.yaml"
    content = yaml.safe_load(example.read_text())
    (workspace / "pipeline.yaml").write_text(
        example.read_text().replace(f"data: {content['data']}", f"data: {many_colours}")
    )
    made = make_plan(workspace / "pipeline.yaml")
    assert all(stage.on for stage in made.stages.values())


def test_images_that_annotators_contest_are_named_by_check_and_split(
    workspace: Path, parted: Callable[..., Path], written: Callable[..., Path]
) -> None:
    data = parted(workspace / "data")
    files = sorted(file.relative_to(data).as_posix() for file in data.rglob("*.png"))
    lines = [f"{file},{file.split('/')[1]},{file.split('/')[0]},anna" for file in files]
    lines.append(f"{files[0]},none,{files[0].split('/')[0]},bert")
    (data / "votes.csv").write_text("\n".join(["path,label,split,annotator", *lines]) + "\n", encoding="utf-8")
    ran = api.pipeline(written(data="data/votes.csv", **OFF), until="split")
    assert ran.error is None
    for stage in ran.stages[:2]:
        assert f"contested and left out: 1 ({files[0]})" in stage.message
        assert [each["path"] for each in stage.values["contested"]] == [files[0]]
