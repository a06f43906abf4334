"""safetensors format: weights alone, with a config.json that timm and `lensmith train --weights` read."""

import dataclasses
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file

from lensmith.exporting.formats.base import FormatCheck, TrainedNetwork, write_json
from lensmith.training.models import hub_repository
from lensmith.training.models.state_dict import load_exactly

CROP_MODE = {"crop": "center", "letterbox": "border", "squash": "squash"}
"""Resize mode → timm's name of it."""


def write(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Write model.safetensors and config.json, and build the network anew from them.

    Raises:
        ModelError: timm builds a network with other tensors from config.json.
        ParityError: the network built anew answers differently.
    """
    # Tensors that share memory have to be parted, and strided ones put in order.
    state = {name: value.detach().clone().contiguous() for name, value in network.model.state_dict().items()}
    save_file(state, folder / hub_repository.FILES[0], metadata={"format": "pt"})
    config = _config(network)
    write_json(folder / "config.json", config)
    found = hub_repository.read(folder)
    model = timm.create_model(
        found.config["architecture"],
        pretrained=False,
        num_classes=found.config["num_classes"],
        **found.config.get("model_args", {}),
    )
    load_exactly(model, found.state, f"folder {folder.name}")
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
            "preprocessing": dataclasses.asdict(how),
        },
    }
