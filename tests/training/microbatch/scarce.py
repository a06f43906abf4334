"""Run as a program: a ResNet-10's step in a process that is left too little address space, by hand and by itself.

Prints one JSON object. Each trial is a process of its own, forked when everything is loaded and has run once.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from lensmith.training.microbatch import malloc
from lensmith.training.microbatch.microbatch import MicroBatcher
from lensmith.training.microbatch.usage import status_bytes

IMAGES, SIZE, CLASSES = 64, 112, 10

torch.set_num_threads(1)
torch.manual_seed(0)
model = timm.create_model("resnet10t", num_classes=CLASSES).eval()
images, labels = torch.randn(IMAGES, 3, SIZE, SIZE), torch.arange(IMAGES) % CLASSES


def loss(x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y, reduction="sum")


def by_hand(chunks: int) -> dict[str, Any]:
    malloc.return_freed_memory()  # takes less address space, so fewer chunks do than would without it
    for x, y in zip(images.chunk(chunks), labels.chunk(chunks), strict=True):
        (loss(x, y) / IMAGES).backward()  # type: ignore[no-untyped-call]
    return {"chunks": chunks}


def by_itself() -> dict[str, Any]:
    done = MicroBatcher(model, checkpointing="never").backward((images, labels), loss)
    return {"chunks": done.chunks, "retries": done.retries}


def trial(work: Callable[[], dict[str, Any]], room: int | None = None, keep: str = "") -> dict[str, Any] | None:
    """What `work` found in a process with `room` bytes of address space more than now; None where they ran out."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before = status_bytes("VmSize")
        if room is not None:
            resource.setrlimit(resource.RLIMIT_AS, (before + room, resource.RLIM_INFINITY))
        try:
            found = work() | {"bytes": status_bytes("VmPeak") - before}
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if keep:
                torch.save([parameter.grad for parameter in model.parameters()], keep)
            os.write(write, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def main(whole_file: str, found_file: str) -> None:
    loss(images[:2], labels[:2]).backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    whole = trial(lambda: by_hand(1), keep=whole_file)
    assert whole is not None
    room = int(0.4 * whole["bytes"])
    hand = next(found for k in (2, 3, 4, 5, 6, 8) if (found := trial(lambda k=k: by_hand(k), room)))
    print(json.dumps({"whole": whole, "room": room, "hand": hand, "found": trial(by_itself, room, found_file)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
