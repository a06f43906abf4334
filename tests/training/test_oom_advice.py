"""Where one image is too much, the error names an image size or a network that was tried and fits."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from lensmith.config import TrainSettings
from lensmith.errors import OutOfMemoryError
from lensmith.training import oom_advice
from lensmith.training.learner import Learner
from lensmith.training.memory_needs import step_bytes
from lensmith.training.microbatch.memory import TooLargeError
from lensmith.training.models import backbone, zoo
from lensmith.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("_one_thread", "_little_to_collect")

SmallMemory = Callable[[int, int], None]


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> SmallMemory:
    """Memory for a forward pass of so many pixels a side at most, of a network of so many parameters."""

    def limit(pixels: int, most: int) -> None:
        plain, plain_fits = torch.nn.Conv2d._conv_forward, oom_advice._fits

        def forward(self: torch.nn.Conv2d, x: torch.Tensor, *others: Any) -> torch.Tensor:
            stored = not isinstance(x, FakeTensor)
            if stored and x.shape[1] == 3 and torch.is_grad_enabled() and x.shape[-1] > pixels:
                raise torch.OutOfMemoryError("CUDA out of memory. (injected)")
            return plain(self, x, *others)

        def fits(model: torch.nn.Module, *others: Any) -> bool:
            return sum(p.numel() for p in model.parameters()) <= most and plain_fits(model, *others)

        monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", forward)
        monkeypatch.setattr(oom_advice, "_fits", fits)

    return limit


def test_a_smaller_image_that_fits_is_named_and_a_resumed_run_removes_its_needs_record(
    quick: dict[str, Any],
    shared_colours: Path,
    tmp_path: Path,
    small_memory: SmallMemory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = {"data": shared_colours, "out": tmp_path / "run", "image_size": 96, "feature_cache": "never", "epochs": 2}
    small_memory(40, 10**9)
    advice = r"1 of 4 images at once.*injected.*Images of 32 px fit: --image-size 32"
    with pytest.raises(TooLargeError, match=advice) as caught:
        Trainer().start(TrainSettings.model_validate({**quick, **chosen}))
    assert caught.value.exit_code == OutOfMemoryError.exit_code == 5
    needs = json.loads((tmp_path / "run" / "needs.json").read_text())
    assert needs["needed_bytes"] > 4 * zoo.count_parameters(quick["model"])
    expected = {"kind": "memory", "device": "cpu", "image_size": 96, "images": 1, "fits": {"image_size": 32}, "step": 0}
    assert needs.items() >= expected.items()
    monkeypatch.undo()
    Trainer().resume(tmp_path / "run")
    assert not (tmp_path / "run" / "needs.json").exists()


def test_counted_bytes_of_a_step_grow_with_the_pixels(quick: dict[str, Any]) -> None:
    settings = TrainSettings.model_validate({**quick, "data": "photos", "image_size": 128})
    network = backbone.build(settings, 3)
    counts = Counter({0: 1, 1: 1, 2: 1})
    learner = Learner(network, settings, network.preprocessing, ("a", "b", "c"), counts, torch.device("cpu"))
    pixels = 4 * 3 * 128 * 128
    gradients = 4 * sum(each.numel() for each in learner.model.parameters() if each.requires_grad)
    assert step_bytes(learner, 8) - step_bytes(learner, 4) > 4 * pixels
    assert step_bytes(learner, 1) > gradients


@pytest.mark.parametrize(
    ("changes", "most", "advice"),
    [
        ({"min_chunk": 4}, 10**9, "fit: --min-chunk 1."),
        ({"min_chunk": 2, "checkpointing": "never"}, 10**9, "fit: --checkpointing auto --min-chunk 1."),
        ({"model": "resnet18"}, 6_000_000, "fits: --model "),
        ({}, 0, "use a machine with more memory."),
    ],
    ids=["chunks", "checkpointing", "a smaller network", "nothing"],
)
def test_settings_that_would_fit_are_named_before_a_smaller_network(
    quick: dict[str, Any], small_memory: SmallMemory, changes: dict[str, Any], most: int, advice: str
) -> None:
    small_memory(128, most)
    settings = TrainSettings.model_validate({**quick, "data": "photos", **changes})
    network = backbone.build(settings, 3)
    counts = Counter({0: 1, 1: 1, 2: 1})
    learner = Learner(network, settings, network.preprocessing, ("a", "b", "c"), counts, torch.device("cpu"))
    assert advice in oom_advice.what_fits(learner, settings, 3).sentence
