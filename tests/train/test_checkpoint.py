"""A checkpoint is whole, the old one or the new one, whatever happens while it is written."""

import errno
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from lensmith.errors import RunError
from lensmith.train import checkpoint

FULL = Path("/dev/full")


def state(value: int, size: int = 3) -> dict[str, Any]:
    return {"model": {"weight": torch.full((size,), float(value))}, "position": {"step": value, "score": None}}


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    checkpoint.save(state(1), path)
    checkpoint.save(state(2), path)
    read = checkpoint.load(path)
    assert torch.equal(read["model"]["weight"], torch.full((3,), 2.0))
    assert read["position"] == {"step": 2, "score": None}
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("size", [3, 1_000_000], ids=["when it is flushed", "half-way"])
def test_a_full_disk_keeps_the_old_one_and_is_called_by_its_name(tmp_path: Path, size: int) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(state(1), path)
    (tmp_path / "last.pt.partial").symlink_to(FULL)
    with pytest.raises(OSError, match="No space left") as raised:
        checkpoint.save(state(2, size), path)
    assert raised.value.errno == errno.ENOSPC
    assert checkpoint.load(path)["position"]["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_what_cannot_be_stored_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(state(1), path)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        checkpoint.save({"generator": (number for number in range(3))}, path)
    assert checkpoint.load(path)["position"]["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("keep", [0, 10, 700])
def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(state(1), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match="A whole checkpoint was expected"):
        checkpoint.load(path)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("code ran",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Evil()}, tmp_path / "last.pt")
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.load(tmp_path / "last.pt")
    assert capsys.readouterr().out == ""


def test_a_missing_checkpoint_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is none\. Ask for it\."):
        checkpoint.load(tmp_path / "last.pt", if_missing="Ask for it.")
