"""Whatever happens while a checkpoint is written, a whole one stays; whatever has happened to a file, it is noticed."""

import errno
import itertools
import os
import pickle
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from lensmith.core import files
from lensmith.errors import OutputError, RunError
from lensmith.training.run_dir import checkpoint


def state(value: int, size: int = 3) -> dict[str, Any]:
    return {"model": {"weight": torch.full((size,), float(value))}, "position": {"step": value, "score": None}}


def step(found: dict[str, Any]) -> int:
    assert torch.equal(found["model"]["weight"], torch.full_like(found["model"]["weight"], found["position"]["step"]))
    return int(found["position"]["step"])


def save(folder: Path, *values: int, size: int = 3) -> None:
    """As a run does."""
    for value in values:
        checkpoint.save(state(value, size), folder / "last.pt", folder / "previous.pt")


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


InChild = Callable[[Callable[[], None]], int]


def test_what_is_saved_is_read_back_and_the_one_before_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    assert names(folder) == ["last.pt"]
    save(folder, 2, 3)
    assert names(folder) == ["last.pt", "previous.pt"]
    assert step(checkpoint.load(folder / "last.pt")) == 3
    assert step(checkpoint.load(folder / "previous.pt")) == 2
    assert checkpoint.load(folder / "last.pt")["position"] == {"step": 3, "score": None}
    assert step(torch.load(folder / "last.pt", weights_only=True)) == 3
    assert checkpoint.recover(folder) is None


def test_a_changed_byte_anywhere_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    whole = (tmp_path / "last.pt").read_bytes()
    for place in range(0, len(whole), 7):
        (tmp_path / "last.pt").write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        with pytest.raises(RunError, match="cannot be read"):
            checkpoint.load(tmp_path / "last.pt")


@pytest.mark.parametrize("keep", [0, 10, 700, -1])
def test_a_cut_file_is_said_to_be_cut(tmp_path: Path, keep: int) -> None:
    save(tmp_path, 1)
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:keep])
    with pytest.raises(RunError, match=r"A whole checkpoint was expected .*cut short"):
        checkpoint.load(tmp_path / "last.pt")


@pytest.mark.parametrize("problem", ["is missing", "cannot be read"])
def test_without_a_whole_newest_the_one_before_is_used_and_safe_from_the_next_save(
    tmp_path: Path, problem: str
) -> None:
    save(tmp_path, 1, 2)
    cut = (tmp_path / "last.pt").read_bytes()[:-9]
    (tmp_path / "last.pt").unlink() if problem == "is missing" else (tmp_path / "last.pt").write_bytes(cut)
    assert str(checkpoint.recover(tmp_path)).startswith(f"last.pt {problem}")
    assert newest(tmp_path) == 1
    assert checkpoint.recover(tmp_path) is None
    save(tmp_path, 2)
    assert [step(checkpoint.load(tmp_path / name)) for name in ("previous.pt", "last.pt")] == [1, 2]


@pytest.mark.parametrize("previous", ["damaged", "missing"])
def test_with_no_whole_one_it_says_what_is_wrong_and_touches_nothing(tmp_path: Path, previous: str) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "last.pt").write_bytes(b"x" * 999)
    (tmp_path / "previous.pt").write_bytes(b"") if previous == "damaged" else (tmp_path / "previous.pt").unlink()
    before = names(tmp_path)
    said = f"last.pt cannot be read .* and previous.pt {'cannot be read' if previous == 'damaged' else 'is missing'}"
    with pytest.raises(RunError, match=rf"A whole checkpoint was expected .*{said}"):
        checkpoint.recover(tmp_path)
    assert names(tmp_path) == before


def test_where_there_is_none_it_says_so_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is none\. Ask for it\."):
        checkpoint.load(tmp_path / "last.pt", if_missing="Ask for it.")
    with pytest.raises(RunError, match=r"There is none\. Begin\."):
        checkpoint.recover(tmp_path, if_missing="Begin.")


def newest(folder: Path) -> int:
    checkpoint.recover(folder)
    assert set(names(folder)) <= {"last.pt", "previous.pt"}
    return step(checkpoint.load(folder / "last.pt"))


@pytest.mark.slow
def test_killed_at_any_line_of_saving_it_leaves_a_whole_one(tmp_path: Path, in_child: InChild) -> None:
    left = []
    save(tmp_path / "before", 1, 2)
    for line in itertools.count(1):
        folder = Path(shutil.copytree(tmp_path / "before", tmp_path / str(line)))

        def killed(line: int = line, folder: Path = folder) -> None:
            lines = itertools.count(1)

            def trace(frame: FrameType, event: str, _: object) -> Any:
                if frame.f_code.co_filename not in (checkpoint.__file__, files.__file__):
                    return None
                if event == "line" and next(lines) == line:
                    os.kill(os.getpid(), signal.SIGKILL)
                return trace

            sys.settrace(trace)
            save(folder, 3)

        ended = in_child(killed)
        left.append(newest(folder))
        if ended != -signal.SIGKILL:
            break
    assert ended == 0
    # The old one, then for the moment between two renames the one before, then the new one.
    assert [key for key, _ in itertools.groupby(left)] == [2, 3]
    assert len(left) > 40


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_killed_in_the_midst_of_writing_it_leaves_a_whole_one(tmp_path: Path, in_child: InChild, share: float) -> None:
    save(tmp_path, 1, 2, size=100_000)
    limit = int(share * (tmp_path / "last.pt").stat().st_size)

    def killed() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        save(tmp_path, 3, size=100_000)

    assert in_child(killed) == -signal.SIGXFSZ
    assert newest(tmp_path) == 2


@pytest.mark.parametrize("guessed", [True, False], ids=["before writing", "while writing"])
def test_a_full_disk_keeps_the_old_ones_and_is_called_by_its_name(
    small_disk: Callable[[int], Path], guessed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk(2)
    save(disk, 1, 2, size=200_000)  # 0.8 MB each
    if not guessed:
        monkeypatch.setattr(checkpoint, "_require_room", lambda *_: None)
    said = r"Room for a checkpoint of 0\.8 MB" if guessed else "No space left"
    with pytest.raises(OutputError, match=rf"{said}.*Free some space"):
        save(disk, 3, size=200_000)
    assert names(disk) == ["last.pt", "previous.pt"]
    assert newest(disk) == 2
    (disk / "previous.pt").unlink()
    save(disk, 3, size=200_000)
    assert newest(disk) == 3


def test_without_room_for_the_first_one_it_does_not_tell_to_go_on(small_disk: Callable[[int], Path]) -> None:
    with pytest.raises(OutputError, match=r"Free some space, then run the same command again\."):
        save(small_disk(1), 1, size=500_000)


def test_a_limit_on_files_is_an_error_of_the_output_too(tmp_path: Path, in_child: InChild) -> None:
    save(tmp_path, 1, size=100_000)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with pytest.raises(OutputError, match=os.strerror(errno.EFBIG)):
            save(tmp_path, 2, size=100_000)
        assert names(tmp_path) == ["last.pt"]

    assert in_child(limited) == 0
    assert newest(tmp_path) == 1


def test_without_the_right_to_write_the_old_one_stays(
    tmp_path: Path, in_child: InChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    tmp_path.chmod(0o555)
    monkeypatch.chdir(tmp_path)

    def somebody_else() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        with pytest.raises(OutputError, match=r"Permission denied.*get the rights"):
            save(Path(), 2)

    assert in_child(somebody_else) == 0
    assert newest(tmp_path) == 1


def test_what_cannot_be_stored_keeps_the_old_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        checkpoint.save({"generator": (number for number in range(3))}, tmp_path / "last.pt", tmp_path / "previous.pt")
    assert names(tmp_path) == ["last.pt"]
    assert newest(tmp_path) == 1


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("code ran",)


def test_code_in_a_checkpoint_is_not_run_and_nothing_else_is_taken_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1)
    checkpoint.save({"model": Evil()}, tmp_path / "last.pt", tmp_path / "previous.pt")
    before = (tmp_path / "last.pt").read_bytes()
    assert checkpoint.recover(tmp_path) is None
    with pytest.raises(RunError, match="It is whole, yet it cannot be read"):
        checkpoint.load(tmp_path / "last.pt")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "last.pt").read_bytes() == before
