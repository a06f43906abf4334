"""Checkpoints: written whole or not at all, read without running code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from lensmith.errors import RunError
from lensmith.train.state_dict import first_sentence


def save(state: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values; at every moment `path` is a whole checkpoint, the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except RuntimeError as error:  # torch hides the OSError of a full disk behind its own
        cause = error.__context__
        raise (cause if isinstance(cause, OSError) else error) from None
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, if_missing: str = "Train again into another folder.") -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Args:
        path: what `save` wrote.
        if_missing: the remedy where there is none.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"A checkpoint was expected at {path}.", "There is none.", if_missing) from error
    except Exception as error:  # a damaged zip, pickle or tensor each raise something else
        # torch's own text goes on to advise switching its protection off
        reason = first_sentence(str(error)) or type(error).__name__
        raise RunError(
            f"A whole checkpoint was expected at {path}.",
            f"It cannot be read ({reason}).",
            "Train again into another folder.",
        ) from error
    return state
