"""`--resume auto`: the same command line finds its run again, and no other."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.config import TrainSettings
from lensmith.errors import RunError
from lensmith.training.run_dir import find_resumable, lock
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer

Short = Callable[..., TrainSettings]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_with_out_it_is_the_run_there_finished_or_not(stopped: Any, short: Short, tmp_path: Path) -> None:
    assert find_resumable.find(short()) is None
    assert find_resumable.find(short(lr=1.0)) is None
    run = stopped(4)
    assert find_resumable.find(short()) == run
    Trainer().start(short(out=tmp_path / "done", epochs=1))
    assert find_resumable.find(short(out=tmp_path / "done", epochs=1)) == tmp_path / "done"


def test_without_out_it_is_the_newest_unfinished_run_with_this_data_and_these_settings(
    stopped: Any, short: Short, tmp_path: Path
) -> None:
    stopped(4, out=Path("runs/old"))
    for age, name in enumerate(["broken", "done", "other data", "other rate", "new", "old"]):
        run = Path("runs") / name
        if name != "old":
            shutil.copytree("runs/old", run)
        description = json.loads((run / "run.json").read_text())
        if name == "other rate":
            description["settings"]["lr"] = 0.1
        if name == "other data":
            description["data"]["source"] = str(tmp_path)
        (run / "run.json").write_text("{}" if name == "broken" else json.dumps(description))
        os.utime(run / "run.json", (1e9 - age, 1e9 - age))
    Run.open(Path("runs/done")).record("end")
    Path("runs/done/bundle").mkdir()
    assert find_resumable.find(short(out=None)) == Path("runs/new")
    assert find_resumable.find(short(out=None, loader_workers=1, device="auto", save_minutes=1.0)) == Path("runs/new")
    assert find_resumable.find(short(out=None, lr=0.1)) == Path("runs/other rate")
    assert find_resumable.find(short(out=None, lr=0.2)) is None


def test_a_finished_run_that_was_not_exported_is_unfinished(short: Short) -> None:
    Trainer().start(short(out=Path("runs/done"), epochs=1))
    assert find_resumable.find(short(out=None, epochs=1)) == Path("runs/done")


@pytest.mark.parametrize("mine", ["splits.csv", "checkpoints/mine.pt", "run.json", "letter.txt"])
def test_a_folder_that_is_no_run_is_never_removed(short: Short, tmp_path: Path, mine: str) -> None:
    (tmp_path / "run" / mine).parent.mkdir(parents=True)
    (tmp_path / "run" / mine).write_text("mine")
    find_resumable.find(short())
    assert (tmp_path / "run" / mine).read_text() == "mine"


def test_a_run_whose_checkpoints_were_deleted_is_not_removed(short: Short) -> None:
    run = Trainer().start(short(epochs=1)).run
    for file in run.checkpoints.iterdir():
        file.unlink()
    run.curves.touch()
    before = files(run.path)
    assert find_resumable.find(short(epochs=1)) == run.path
    assert files(run.path) == before


def test_what_another_process_is_just_beginning_is_not_removed(
    short: Short, stopped: Any, in_child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(0)
    (run / "checkpoints/last.pt").unlink()
    monkeypatch.setattr(lock, "WAIT_S", 0.2)

    def second() -> None:
        with pytest.raises(RunError, match="Another one is training it"):
            find_resumable.find(short())

    with lock.locked_run(run):
        assert in_child(second) == 0
    assert Run.open(run).path == run
    assert find_resumable.find(short()) is None
    assert not run.exists()
