"""Checkpoint files: written whole or not at all, the newest two of a run, and read without running code.

A run has the newest (last.pt) and the one before (previous.pt). torch does not notice when bytes of a file have
changed, so each ends with the SHA-256 of all before it, which `torch.load` ignores.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from lensmith.core.files import atomic_path, sync_directory
from lensmith.core.text import first_sentence
from lensmith.errors import OutputError, RunError

LAST = "last.pt"
PREVIOUS = "previous.pt"

_SEAL = b"lensmith"
"""Mark between torch's bytes and their SHA-256."""

_TRAIN_AGAIN = "Train again into another folder."


def save(state: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write tensors and plain values to `path`; whatever interrupts it, a whole checkpoint stays.

    Args:
        state: tensors, numbers, strings, None, and dicts and lists of them.
        path: the checkpoint to write, RUN/checkpoints/NAME; it replaces an older one.
        previous: a second path, which the older one is moved to; None: the older one is lost.

    Raises:
        OutputError: no room or no right to write; the older checkpoint is unchanged.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_room(state, path)
        with atomic_path(path) as partial:
            with partial.open("wb") as file:
                sealed = _Sealed(file)
                torch.save(state, sealed)  # type: ignore[arg-type]
                sealed.close()
                os.fsync(file.fileno())  # a full disk may show only now, while the older one is still there
            if previous is not None and path.exists():
                path.replace(previous)  # until the new one takes its name, the previous one is the newest


def load(path: Path, if_missing: str = _TRAIN_AGAIN) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Args:
        path: a file that `save` wrote.
        if_missing: the error's remedy where there is none.

    Raises:
        RunError: the checkpoint is missing or damaged.
    """
    try:
        return _read(path)
    except FileNotFoundError as error:
        raise RunError(f"A checkpoint was expected at {path}.", "There is none.", if_missing) from error
    except _DamagedError as error:
        raise RunError(
            f"A whole checkpoint was expected at {path}.", f"It cannot be read ({error}).", _TRAIN_AGAIN
        ) from error


def is_checkpoint(path: Path) -> bool:
    """Whether `save` wrote this file, by the mark near its end."""
    size = len(_SEAL) + hashlib.sha256().digest_size
    try:
        with path.open("rb") as file:
            file.seek(-size, os.SEEK_END)
            return file.read(len(_SEAL)) == _SEAL
    except OSError:  # shorter, a folder, or gone
        return False


def recover(folder: Path, if_missing: str = _TRAIN_AGAIN) -> str | None:
    """Make last.pt whole: where it is damaged, or a crash has left none, previous.pt takes its place.

    Partial files of a killed `save` are removed.

    Args:
        folder: a run's folder checkpoints/, which no other process is writing to.
        if_missing: the error's remedy where there is neither file.

    Returns:
        Why previous.pt had to take its place; None where it had not.

    Raises:
        RunError: there is no checkpoint, or none is whole; no file has changed.
        OutputError: no right to write.
    """
    problems = {name: problem for name in (LAST, PREVIOUS) if (problem := _problem(folder / name))}
    if len(problems) == 2:
        if not any((folder / name).exists() for name in problems):
            raise RunError(f"A checkpoint was expected in {folder}.", "There is none.", if_missing)
        raise RunError(
            f"A whole checkpoint was expected in {folder}.", f"{' and '.join(problems.values())}.", _TRAIN_AGAIN
        )
    with _explained(folder / LAST):
        for stale in folder.glob("*.partial*"):
            stale.unlink(missing_ok=True)
        if LAST in problems:
            (folder / PREVIOUS).replace(folder / LAST)
            sync_directory(folder)
    return problems.get(LAST)


def _problem(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            _require_whole(file)
    except FileNotFoundError:
        return f"{path.name} is missing"
    except _DamagedError as error:
        return f"{path.name} cannot be read ({error})"
    return None


class _DamagedError(Exception):
    """A file that differs from what `save` wrote; the text says how."""


class _Sealed:
    """The file that `torch.save` writes to: hashes all bytes, and ends them with the SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.write(_SEAL + self._digest.digest())
        self._file.flush()


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        _require_whole(file)
        file.seek(0)
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch, pickle and zip each raise something else
            # torch's own text advises to switch its protection off
            reason = first_sentence(str(error)) or type(error).__name__
            raise RunError(
                f"A checkpoint that this lensmith can read was expected at {path}.",
                f"It is whole, yet it cannot be read ({reason}).",
                "Use the version it was made with, or train again into another folder.",
            ) from error
    return state


def _require_whole(file: IO[bytes]) -> None:
    size = os.fstat(file.fileno()).st_size - len(_SEAL) - hashlib.sha256().digest_size
    if size < 0:
        raise _DamagedError("it is cut short")
    digest = hashlib.sha256()
    try:
        while size and (piece := file.read(min(size, 1 << 20))):
            digest.update(piece)
            size -= len(piece)
        seal = file.read()
    except OSError as error:  # a failing disk
        raise _DamagedError(str(error.strerror)) from error
    if not seal.startswith(_SEAL):
        raise _DamagedError("it is cut short, or its end has changed")
    if seal != _SEAL + digest.digest():
        raise _DamagedError("its bytes have changed")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Translate the system's refusal to write `path` into an OutputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch hides the OSError of a full disk behind its own
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OutputError(
            f"A checkpoint was to be written to {path}.",
            f"The system said: {cause.strerror or cause}; what was saved before is unchanged.",
            f"Free some space or get the rights, then {_next_command(path)}",
        ) from error


def _require_room(state: dict[str, Any], path: Path) -> None:
    """Refuse before writing what cannot fit, so that a disk shared with others is not filled first."""
    needed, free = _bytes(state), shutil.disk_usage(path.parent).free
    if needed > free:
        raise OutputError(
            f"Room for a checkpoint of {needed / 1e6:,.1f} MB was expected in {path.parent}.",
            f"{free / 1e6:,.1f} MB are free; what was saved before is unchanged.",
            f"Free some space, then {_next_command(path)}",
        )


def _next_command(path: Path) -> str:
    if any(path.with_name(name).exists() for name in (LAST, PREVIOUS)):
        return f"resume with: lensmith train --resume {path.parent.parent}"
    return "run the same command again."


def _bytes(value: Any) -> int:
    """Bytes of the tensors in `value`, each as often as it occurs: if anything, more than the file holds."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0
