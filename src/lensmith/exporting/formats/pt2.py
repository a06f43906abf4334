"""torch.export: the whole network in one file that PyTorch runs without its Python code."""

from __future__ import annotations

from pathlib import Path

import torch

from lensmith.exporting.formats.base import Outcome, Source

FILE = "model.pt2"


def write(source: Source, folder: Path) -> Outcome:
    """Write model.pt2 with a free batch dimension, and ask it back.

    Raises:
        ParityError: it answers otherwise.
    """
    path = folder / FILE
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(source.model, (source.example(),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    source.write_config(folder)
    return Outcome(source.check(FILE, source.torch_answer(torch.export.load(path).module())))
