"""What the documents show for loops of one's own runs and learns, also when memory runs out."""

import importlib
import os
import re
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lensmith.training.microbatch.microbatch import MicroBatcher

pytestmark = pytest.mark.usefixtures("_one_thread")

ROOT = Path(__file__).parents[2]
FITS = 5


@contextmanager
def small_memory(model: nn.Module) -> Iterator[list[int]]:
    """More than FITS images at once run out of memory while learning; yields the sizes of all chunks that came."""
    sizes: list[int] = []

    def run_out(module: nn.Module, given: tuple[torch.Tensor, ...], answer: torch.Tensor) -> None:
        sizes.append(len(given[0]))
        if module.training and sizes[-1] > FITS:
            raise torch.OutOfMemoryError("CUDA out of memory, as a test says")

    handle = model.register_forward_hook(run_out)
    try:
        yield sizes
    finally:
        handle.remove()


def network() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_resnet", num_classes=3)
    return model


def lightning_example() -> dict[str, Any]:
    try:
        importlib.import_module("lightning")
    except ImportError:
        reason = "Lightning is not installed, so the example cannot be tried"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return runpy.run_path(str(ROOT / "examples/lightning_module.py"))


def documented_loop() -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/memory.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def test_the_loop_in_the_document_steps_as_a_plain_one_when_memory_runs_out() -> None:
    torch.manual_seed(1)
    batches = [(torch.rand(12, 3, 32, 32), torch.randint(3, (12,))) for _ in range(3)]
    ours, plain = network().eval(), network().eval()  # frozen BatchNorm, so that chunks change nothing
    names = {"model": ours.train(), "F": F, "loader": batches, "optimizer": torch.optim.SGD(ours.parameters(), 0.1)}
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with small_memory(ours) as sizes:
        exec(documented_loop(), names)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    for images, labels in batches:
        F.cross_entropy(plain(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sizes[0] == 12
    assert set(sizes[-4:]) == {3}
    for own, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_the_loop_in_the_document_is_five_lines() -> None:
    lines = [line for line in documented_loop().splitlines() if line and not line.startswith("from ")]
    assert len(lines) == 5


def test_the_public_name_is_the_class() -> None:
    assert importlib.import_module("lensmith.training").MicroBatcher is MicroBatcher


def pictures(count: int) -> TensorDataset:
    """Noise in one of three colours, which is the class."""
    labels = torch.arange(count) % 3
    return TensorDataset(torch.rand(count, 3, 32, 32) + torch.eye(3)[labels, :, None, None], labels)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers, and its own deprecations
def test_the_lightning_module_learns_while_memory_runs_out(tmp_path: Path) -> None:
    example = lightning_example()
    lightning = importlib.import_module("lightning")
    module = example["Classifier"](network(), lr=3e-3)
    module.micro = MicroBatcher(module.model, tile=FITS)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(
        max_epochs=6, accelerator="cpu", default_root_dir=tmp_path, **dict.fromkeys(quiet, False)
    )
    with small_memory(module.model) as sizes:
        trainer.fit(module, DataLoader(pictures(60), batch_size=20, shuffle=True))
    assert sizes[0] == 20
    assert set(sizes[-4:]) == {FITS}
    assert trainer.global_step == 18
    assert trainer.callback_metrics["chunks"] == 4
    unseen = pictures(30)
    answers = torch.cat(trainer.predict(module, DataLoader(unseen, batch_size=30)))
    assert (answers == unseen.tensors[1]).float().mean() > 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_lightning_example_runs_as_it_stands() -> None:
    assert lightning_example()["fit"]() > 0.9
