"""One optimizer step: a whole batch is augmented, goes forward and back, and the weights move once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lensmith.config import TrainSettings
from lensmith.image import Preprocessing
from lensmith.train import optimizer, precision
from lensmith.train.augment import LEVELS
from lensmith.train.backbone import Network
from lensmith.train.dataset import Batch
from lensmith.train.recipe import Plan, Stage


class Learner:
    """A network with all that changes when it learns; its `state` is what a checkpoint needs of it.

    Args:
        network: as `backbone.build` made it.
        settings: of the run.
        how: preprocessing of the run.
        device: where to train.
    """

    def __init__(self, network: Network, settings: TrainSettings, how: Preprocessing, device: torch.device) -> None:
        self.network, self.settings, self.device = network, settings, device
        self.model: nn.Module = network.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optimizer.build(self.model, network.head, settings)
        self.augment = LEVELS[settings.augment]
        self.precisions: dict[str, str] = {}  # stage → precision, once it is chosen
        self._precision = "fp32"
        self._learning_norms: list[nn.Module] = []
        self._scaler = torch.amp.GradScaler(device.type, enabled=False)
        self._size = how.image_size
        self._mean = torch.tensor(how.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(how.std, device=device).view(1, 3, 1, 1)

    def enter(self, stage: Stage) -> str:
        """Freeze what the stage freezes and settle its precision, by trial unless the settings name one."""
        self.network.freeze(stage.frozen, self.settings.batch_norm == "frozen")
        norms = [module for module in self.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._learning_norms = [norm for norm in norms if norm.training]
        if stage.name not in self.precisions:
            wanted = self.settings.precision
            self.precisions[stage.name] = precision.fastest(self._try, self.device) if wanted == "auto" else wanted
        self._use(self.precisions[stage.name])
        return self._precision

    def take(self, batch: Batch, plan: Plan, step: int) -> torch.Tensor:
        """Take the 0-based step `step` on a batch of at least one image.

        Returns:
            float64 (2,) on the device: the sum of the losses, and how many answers were right.
        """
        optimizer.set_rates(self.optimizer, plan, step)
        images, labels, factors = (
            tensor.to(self.device, non_blocking=True) for tensor in (batch.images, batch.labels, batch.factors)
        )
        # Decoded pictures are (N, S, S, 3), which is channels_last memory once the axes are renamed.
        inputs = self.augment.apply(images.permute(0, 3, 1, 2).float().div_(255), factors)
        inputs = inputs.sub_(self._mean).div_(self._std)
        logits = self._forward(inputs, self._precision)
        smoothing = self.settings.label_smoothing
        loss = nn.functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=smoothing)
        self._scaler.scale(loss / len(labels)).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.stack((loss.detach().double(), (logits.argmax(1) == labels).sum().double()))

    def state(self) -> dict[str, Any]:
        """Weights, optimizer, scaler, chosen precisions and random state, as tensors and plain values."""
        on_gpu = self.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "precisions": dict(self.precisions),
            "rng": torch.get_rng_state(),
            "rng_device": torch.cuda.get_rng_state(self.device) if on_gpu else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precisions = dict(state["precisions"])
        if state["scaler"]:  # empty unless fp16 was in use
            self._use("fp16")
            self._scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and state["rng_device"] is not None:
            torch.cuda.set_rng_state(state["rng_device"], self.device)

    def _forward(self, inputs: torch.Tensor, chosen: str) -> torch.Tensor:
        for norm in self._learning_norms:
            norm.train(len(inputs) > 1)  # one image has no statistics to learn from, so the running ones serve
        with precision.autocast(self.device, chosen):
            logits: torch.Tensor = self.model(inputs)
        return logits

    def _use(self, chosen: str) -> None:
        self._precision = chosen
        if self._scaler.is_enabled() != (chosen == "fp16"):
            self._scaler = torch.amp.GradScaler(self.device.type, enabled=chosen == "fp16")

    def _try(self, chosen: str) -> None:
        """Forward and back on noise, leaving weights, statistics and random state as they were."""
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            noise = torch.randn(self.settings.batch_size, 3, self._size, self._size, device=self.device)
            logits = self._forward(noise.to(memory_format=torch.channels_last), chosen)
            logits.float().square().mean().backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
