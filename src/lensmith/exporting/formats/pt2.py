"""pt2 format, by torch.export: the whole network in one file that PyTorch runs without its Python code."""

from pathlib import Path

import torch

from lensmith.exporting.formats.base import FormatCheck, TrainedNetwork

FILE = "model.pt2"


def write(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Write model.pt2 with a free batch dimension, and check its answers.

    Raises:
        ParityError: it answers differently.
    """
    path = folder / FILE
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network.model, (network.example(),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    network.write_config(folder)
    return FormatCheck(network.check(FILE, network.torch_answer(torch.export.load(path).module())))
