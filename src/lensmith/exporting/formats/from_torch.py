"""Formats of the network itself: torch.export's pt2, TorchScript, and safetensors with a config.json for timm."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from lensmith.exporting.formats.base import FormatCheck, TrainedNetwork, write_json
from lensmith.training.models import hub_repository
from lensmith.training.models.state_dict import load_exactly

CROP_MODE = {"crop": "center", "letterbox": "border", "squash": "squash"}
"""Resize mode → timm's name of it."""


def write_pt2(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Write model.pt2, which PyTorch runs without the network's Python code, with a free batch dimension; check it.

    Raises:
        ParityError: the program's probabilities differ from the network's.
    """
    path = folder / "model.pt2"
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network.model, (network.example(),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return FormatCheck(network.check(path.name, network.torch_answer(torch.export.load(path).module())))


def write_torchscript(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Trace the network into model.pt, for programs with LibTorch, and check its answers.

    Raises:
        ParityError: the trace's probabilities differ from the network's, for instance because the network branches on
            its input.
    """
    path = folder / "model.pt"
    jit: Any = torch.jit  # its functions are not typed
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about the deprecation, which README.md and the note mention
        # PyTorch's own check runs the trace thrice on the same zeros; ours is on real images.
        jit.save(jit.trace(network.model, network.example(), check_trace=False), str(path))
        loaded = jit.load(str(path), map_location="cpu")
        difference = network.check(path.name, network.torch_answer(loaded))
    note = "PyTorch has deprecated TorchScript: use it for LibTorch programs that exist, and pt2 for new ones"
    return FormatCheck(difference, note)


def write_safetensors(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Write model.safetensors and a config.json that timm reads, too, and build the network anew from them.

    Raises:
        ModelError: timm builds a network with other tensors from config.json.
        ParityError: the network built anew answers differently.
    """
    # Tensors that share memory have to be parted, and strided ones put in order.
    state = {name: value.detach().clone().contiguous() for name, value in network.model.state_dict().items()}
    save_file(state, folder / hub_repository.FILES[0], metadata={"format": "pt"})
    config = _config(network)
    write_json(folder / "config.json", config)
    written, config, _ = hub_repository.read(folder)
    model = timm.create_model(config["architecture"], num_classes=config["num_classes"], **config.get("model_args", {}))
    load_exactly(model, written, f"folder {folder.name}")
    return FormatCheck(network.check(hub_repository.FILES[0], network.torch_answer(model.eval())))


def _config(network: TrainedNetwork) -> dict[str, Any]:
    how, cfg = network.preprocessing, network.cfg
    fixed = bool(cfg.get("fixed_input_size"))
    kept = {key: cfg[key] for key in ("first_conv", "classifier", "license") if cfg.get(key)}
    return {
        "architecture": network.architecture,
        "num_classes": len(network.labels),
        "label_names": list(network.labels),
        # A transformer with position embeddings has them for one size of image.
        **({"model_args": {"img_size": network.size}} if fixed else {}),
        "pretrained_cfg": {
            **kept,
            "input_size": [3, network.size, network.size],
            "fixed_input_size": fixed,
            "interpolation": how.interpolation,
            "crop_pct": how.crop_fraction,
            "crop_mode": CROP_MODE[how.resize],
            "mean": list(how.mean),
            "std": list(how.std),
            "num_classes": len(network.labels),
        },
        "lensmith": {
            "name": network.name,
            "version": network.version,
            "temperature": network.temperature,
            "smoothing": network.smoothing,
            "preprocessing": dataclasses.asdict(how),
        },
    }
