"""Weights alone, with a config.json that timm and `lensmith train --weights` read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file

from lensmith.exporting.formats.base import Outcome, Source, write_json
from lensmith.training.models import hub_repository
from lensmith.training.models.state_dict import load_exactly

CROP_MODE = {"crop": "center", "letterbox": "border", "squash": "squash"}
"""Resize mode → timm's word for it."""


def write(source: Source, folder: Path) -> Outcome:
    """Write model.safetensors and config.json, and build the network anew from them.

    Raises:
        ModelError: what timm builds from config.json has other tensors.
        ParityError: it answers otherwise.
    """
    # Tensors that share memory have to be parted, and strided ones put in order.
    state = {name: value.detach().clone().contiguous() for name, value in source.model.state_dict().items()}
    save_file(state, folder / hub_repository.FILES[0], metadata={"format": "pt"})
    config = _config(source)
    write_json(folder / "config.json", config)
    found = hub_repository.read(folder)
    model = timm.create_model(
        found.config["architecture"],
        pretrained=False,
        num_classes=found.config["num_classes"],
        **found.config.get("model_args", {}),
    )
    load_exactly(model, found.state, f"folder {folder.name}")
    return Outcome(source.check(hub_repository.FILES[0], source.torch_answer(model.eval())))


def _config(source: Source) -> dict[str, Any]:
    how, cfg = source.preprocessing, source.cfg
    fixed = bool(cfg.get("fixed_input_size"))
    kept = {key: cfg[key] for key in ("first_conv", "classifier", "license") if cfg.get(key)}
    return {
        "architecture": source.architecture,
        "num_classes": len(source.labels),
        "label_names": list(source.labels),
        # A transformer with position embeddings has them for one size of image.
        **({"model_args": {"img_size": source.size}} if fixed else {}),
        "pretrained_cfg": {
            **kept,
            "input_size": [3, source.size, source.size],
            "fixed_input_size": fixed,
            "interpolation": how.interpolation,
            "crop_pct": how.crop_fraction,
            "crop_mode": CROP_MODE[how.resize],
            "mean": list(how.mean),
            "std": list(how.std),
            "num_classes": len(source.labels),
        },
        "lensmith": {
            "name": source.name,
            "version": source.version,
            "temperature": source.temperature,
            "preprocessing": dataclasses.asdict(how),
        },
    }
