"""Checkpoints: written whole or not at all, two kept, and read without running code.

A run keeps the newest (last.pt) and the one before (previous.pt). torch does not notice when bytes of a file have
changed, so each ends with the SHA-256 of all before it; `torch.load` passes that over.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

from lensmith.core.text import first_sentence
from lensmith.errors import OutputError, RunError

LAST = "last.pt"
PREVIOUS = "previous.pt"
PARTIAL = ".partial"

_SEAL = b"lensmith"
"""Stands between torch's bytes and their SHA-256."""

_TRAIN_AGAIN = "Train again into another folder."


def save(state: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write tensors and plain values to `path`; whatever interrupts this, a whole checkpoint stays.

    Args:
        state: tensors, numbers, strings, None, and dicts and lists of them.
        path: where it goes, in the place of an older one; RUN/checkpoints/NAME.
        previous: where the older one goes; without it, it is lost once the new one is whole.

    Raises:
        OutputError: no room or no right to write; what stood there before is as it was.
    """
    partial = path.with_name(path.name + PARTIAL)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        _require_room(state, path)
        try:
            with partial.open("wb") as file:
                sealed = _Sealed(file)
                torch.save(state, sealed)  # type: ignore[arg-type]
                sealed.close()
                os.fsync(file.fileno())
            if previous is not None and path.exists():
                path.replace(previous)  # from here to the next line the previous one is the newest
            partial.replace(path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def load(path: Path, if_missing: str = _TRAIN_AGAIN) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Args:
        path: what `save` wrote.
        if_missing: the remedy where there is none.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        return _read(path)
    except FileNotFoundError as error:
        raise RunError(f"A checkpoint was expected at {path}.", "There is none.", if_missing) from error
    except _DamagedError as error:
        raise RunError(
            f"A whole checkpoint was expected at {path}.", f"It cannot be read ({error}).", _TRAIN_AGAIN
        ) from error


def recover(folder: Path, if_missing: str = _TRAIN_AGAIN) -> str | None:
    """See to it that last.pt is whole: where it is damaged, or a crash has left none, previous.pt takes its place.

    What a killed `save` left half-written is removed.

    Args:
        folder: checkpoints/ of a run, which no other process is writing to.
        if_missing: the remedy where there is neither.

    Returns:
        Why previous.pt had to stand in; None where it had not.

    Raises:
        RunError: there is none, or none that is whole; nothing was touched.
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
        for stale in folder.glob("*" + PARTIAL):
            stale.unlink(missing_ok=True)
        if LAST in problems:
            (folder / PREVIOUS).replace(folder / LAST)
            _sync(folder)
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
    """A file that is not as `save` left it; the text says why."""


class _Sealed:
    """What `torch.save` needs of a file; adds up what goes through, and closes with the sum."""

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
            # torch's own text goes on to advise switching its protection off
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
    """Say what a system's refusal to write `path` means."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch hides the OSError of a full disk behind its own
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OutputError(
            f"A checkpoint was to be written to {path}.",
            f"The system said: {cause.strerror or cause}; what was saved before is as it was.",
            f"Free some space or get the rights, then {_way_on(path)}",
        ) from error


def _require_room(state: dict[str, Any], path: Path) -> None:
    """Refuse before writing what cannot fit, so that a disk shared with others is not filled first."""
    needed, free = _bytes(state), shutil.disk_usage(path.parent).free
    if needed > free:
        raise OutputError(
            f"Room for a checkpoint of {needed / 1e6:,.1f} MB was expected in {path.parent}.",
            f"{free / 1e6:,.1f} MB are free; what was saved before is as it was.",
            f"Free some space, then {_way_on(path)}",
        )


def _way_on(path: Path) -> str:
    if any(path.with_name(name).exists() for name in (LAST, PREVIOUS)):
        return f"go on with: lensmith train --resume {path.parent.parent}"
    return "run the same command again."


def _bytes(value: Any) -> int:
    """Of the tensors in `value`, each storage once per mention: a little more than the file holds, if anything."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0


def _sync(folder: Path) -> None:
    """Have the folder's names on the disk, as `fsync` has a file's bytes there."""
    with suppress(OSError):  # some network file systems sync no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
