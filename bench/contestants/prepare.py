"""Starting weights for all contestants, and which format is faster, found once in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from contestants.task import MEAN, STD
from lensmith.training.models.weights import PIP_WEIGHTS, load_pretrained

TRIALS = 3


def weights(model_name: str, classes: int, seed: int, into: Path) -> tuple[nn.Module, bool]:
    """Save a network with a new head as the hub lays it out; whether it is pretrained, which needs a pip package."""
    torch.manual_seed(seed)
    model = timm.create_model(model_name)
    pretrained = model_name in PIP_WEIGHTS
    if pretrained:
        load_pretrained(model, model_name)
    model.reset_classifier(classes)
    into.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, into / "model.safetensors")
    images = {"mean": MEAN, "std": STD, "interpolation": "bicubic"}
    config = {"architecture": model_name, "num_classes": classes, "pretrained_cfg": images}
    (into / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model, pretrained


def bf16_is_faster(model: nn.Module, mode: str, batch_size: int, image_size: int, device: str) -> bool:
    """Time a step of training in fp32 and in bfloat16, in turn, and compare the best times."""
    model = model.to(device).train(mode == "full")
    if mode == "frozen":
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    images = torch.rand(batch_size, 3, image_size, image_size, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    best = {False: float("inf"), True: float("inf")}
    for trial in range(TRIALS + 1):
        for bf16 in best:
            started = time.perf_counter()
            with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
                loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            model.zero_grad()
            if device == "cuda":
                torch.cuda.synchronize()
            if trial:  # the first pays for warming up
                best[bf16] = min(best[bf16], time.perf_counter() - started)
    return best[True] < best[False]


def main() -> None:
    """Command line: a JSON object with the arguments; answers with one."""
    given = json.loads(sys.argv[1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, pretrained = weights(given["model"], given["classes"], given["seed"], Path(given["into"]))
    faster = bf16_is_faster(model, given["mode"], given["batch_size"], given["image_size"], device)
    print(json.dumps({"device": device, "bf16": faster, "pretrained": pretrained}))
