"""TorchScript format, for programs with LibTorch. PyTorch has deprecated it in favour of `pt2`."""

import warnings
from pathlib import Path
from typing import Any

import torch

from lensmith.exporting.formats.base import FormatCheck, TrainedNetwork

FILE = "model.pt"
NOTE = "PyTorch has deprecated TorchScript: use it for LibTorch programs that exist, and pt2 for new ones"


def write(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Trace the network into model.pt, and check its answers.

    Raises:
        ParityError: it answers differently, for instance because the network branches on its input.
    """
    path = folder / FILE
    jit: Any = torch.jit  # its functions are not typed
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about the deprecation, which README.md and the note mention
        # PyTorch's own check runs the trace thrice on the same zeros; ours is on real images.
        jit.save(jit.trace(network.model, network.example(), check_trace=False), str(path))
        loaded = jit.load(str(path), map_location="cpu")
        difference = network.check(FILE, network.torch_answer(loaded))
    network.write_config(folder)
    return FormatCheck(difference, NOTE)
