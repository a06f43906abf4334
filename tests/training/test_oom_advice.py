"""Where one image is too much, the error names an image size or a network that was tried and fits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lensmith.config import TrainSettings
from lensmith.training import oom_advice
from lensmith.training.microbatch.memory import TooLargeError
from lensmith.training.trainer import Trainer

MESSAGE = "CUDA out of memory. (injected)"


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Memory for a forward pass of so many pixels a side at most, of a network of so many parameters."""

    def limit(pixels: int, parameters: int) -> None:
        plain = torch.nn.Conv2d._conv_forward

        def forward(self: torch.nn.Conv2d, x: torch.Tensor, *parameters: Any) -> torch.Tensor:
            if x.shape[1] == 3 and x.requires_grad is False and torch.is_grad_enabled() and x.shape[-1] > pixels:
                raise torch.OutOfMemoryError(MESSAGE)
            return plain(self, x, *parameters)

        monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", forward)
        plain_step = oom_advice._goes_through

        def goes_through(model: torch.nn.Module, *others: Any) -> bool:
            fits = sum(p.numel() for p in model.parameters()) <= parameters
            return fits and plain_step(model, *others)

        monkeypatch.setattr(oom_advice, "_goes_through", goes_through)

    return limit


def settings_for(quick: dict[str, Any], data: Path, out: Path, **changes: Any) -> TrainSettings:
    return TrainSettings.model_validate({**quick, "data": data, "out": out, "image_size": 128, **changes})


def test_a_smaller_image_that_fits_is_named(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path, small_memory: Callable[..., None]
) -> None:
    small_memory(pixels=70, parameters=10**9)
    with pytest.raises(TooLargeError, match=r"1 of 4 images at once.*injected.*Images of 64 px fit: --image-size 64"):
        Trainer().start(settings_for(quick, shared_colours, tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "parameters", "advice"),
    [
        ({"min_chunk": 4}, 10**9, "fit: --min-chunk 1"),
        ({"min_chunk": 2, "checkpointing": "never"}, 10**9, "fit: --checkpointing auto --min-chunk 1"),
        ({"model": "resnet18"}, 6_000_000, r"\w+ fits: --model \w+"),
    ],
    ids=["chunks", "checkpointing", "a smaller network"],
)
def test_settings_that_would_fit_are_named_before_a_smaller_network(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path, small_memory: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], parameters: int, advice: str,
) -> None:  # fmt: skip
    small_memory(pixels=128, parameters=parameters)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError(MESSAGE)

    monkeypatch.setattr("lensmith.training.learner.Learner._loss", full)
    with pytest.raises(TooLargeError, match=advice):
        Trainer().start(settings_for(quick, shared_colours, tmp_path / "run", **changes))
