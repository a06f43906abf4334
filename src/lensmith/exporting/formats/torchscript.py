"""TorchScript, for programs with LibTorch. PyTorch has deprecated it; `pt2` is what takes its place."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from lensmith.exporting.formats.base import Outcome, Source

FILE = "model.pt"
NOTE = "PyTorch has deprecated TorchScript: use it for LibTorch programs that exist, and pt2 for new ones"


def write(source: Source, folder: Path) -> Outcome:
    """Trace the network into model.pt, and ask it back.

    Raises:
        ParityError: it answers otherwise, as where the network branches on its input.
    """
    path = folder / FILE
    jit: Any = torch.jit  # its functions are not typed
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the deprecation, which README.md and the note tell of
        # PyTorch's own check runs the trace thrice on the same zeros; ours is on real images.
        jit.save(jit.trace(source.model, source.example(), check_trace=False), str(path))
        loaded = jit.load(str(path), map_location="cpu")
        difference = source.check(FILE, source.torch_answer(loaded))
    source.write_config(folder)
    return Outcome(difference, NOTE)
