"""One optimizer step: a whole batch is augmented, goes forward and back, and the weights move once.

Augmentation and mixing see the whole batch before it is cut into chunks, so memory never changes the recipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.core.memoized import memoized_on_disk
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training import optimizer, precision
from lensmith.training.dataloading import augment
from lensmith.training.dataloading.dataset import Batch
from lensmith.training.dataloading.mixup import Mixer
from lensmith.training.feature_cache.split_model import SplitPoint
from lensmith.training.feature_distillation import tapped
from lensmith.training.linear_probe.fit import copy_head
from lensmith.training.linear_probe.lbfgs import LinearHead
from lensmith.training.loss import task_of
from lensmith.training.microbatch import malloc, memory
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.distributed import World
from lensmith.training.microbatch.microbatch import MicroBatcher, StepResult
from lensmith.training.microbatch.onednn_workaround import in_healthy_thread
from lensmith.training.models.backbone import Network
from lensmith.training.models.fold_batchnorm import BatchNormFolding
from lensmith.training.schedule import Phase, Plan

TRIAL = 16
"""Images that precisions and layouts are tried on."""

PIECE = 32
"""Images that are augmented at once; always the same, so that it never depends on memory."""


class Learner:
    """A network with all that changes when it learns; its `state` is what a checkpoint needs of it.

    Args:
        network: as `backbone.build` made it.
        settings: of the run.
        how: preprocessing of the run.
        labels: of the classes, in order.
        counts: training images of each class.
        device: where to train.
        world: the ranks that train together.
    """

    def __init__(
        self,
        network: Network,
        settings: TrainSettings,
        how: Preprocessing,
        labels: Sequence[str],
        counts: Counter[int],
        device: torch.device,
        world: World | None = None,
    ) -> None:
        self.network, self.settings, self.device, self.world = network, settings, device, world or World()
        self.model: nn.Module = network.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optimizer.build(network, settings)
        self.ema = ModelEmaV3(self.model, decay=settings.ema, use_warmup=True) if settings.ema else None
        self.augment = augment.build(settings, how.image_size)
        self.mixer = Mixer(settings.mixup, settings.cutmix, len(labels)) if settings.mixup or settings.cutmix else None
        self.task = task_of(settings, labels, counts, device, network)
        self.micro = MicroBatcher(
            self.model,
            min_chunk=settings.min_chunk,
            max_chunk=settings.batch_size if settings.accumulate > 1 else None,
            tile=settings.batch_norm_tile,
            checkpointing=settings.checkpointing,
            world=self.world,
            sync_batch_norm=settings.sync_batch_norm,
        )
        self.precisions: dict[str, tuple[str, str]] = {}  # phase → precision and layout, once they are chosen
        self.folding = BatchNormFolding(self.model, how.image_size)
        self._phase = ""
        self._mixes = True
        self._tail: nn.Module | None = None  # what learns, where a phase learns from features
        self._precision, self._layout = "fp32", torch.channels_last
        self._scaler = torch.amp.GradScaler(device.type, enabled=False)
        self.size = how.image_size  # pixels a side in the phase under way
        self._mean = torch.tensor(how.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(how.std, device=device).view(1, 3, 1, 1)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def enter(self, phase: Phase, split_point: SplitPoint | None = None) -> str:
        """Freeze what the phase freezes and settle its precision, by trial unless the settings name one.

        Args:
            phase: to be trained.
            split_point: where batches of features enter the network; None: batches are images.

        Returns:
            The precision.
        """
        self.network.freeze(phase.trainable, self.settings.batch_norm == "frozen")
        self.folding.fold()
        self._tail = None if split_point is None else split_point.trainable_tail(self.model)
        self._mixes = not phase.is_head_warmup
        if phase.name == self._phase:  # resumed in the middle of it
            self.micro.refresh()
        else:
            self.micro.restart()
        self._phase, self.size = phase.name, phase.image_size or self.size
        self._shape = (3, self.size, self.size) if split_point is None else split_point.shape
        if phase.name not in self.precisions:
            wanted = self.settings.precision
            # A head alone is too little for a trial.
            way: tuple[str, str] = ("fp32" if wanted == "auto" else wanted, "channels_last")
            if wanted == "auto" and len(self._shape) > 1:
                way = self._autotune_precision(phase)
            self.precisions[phase.name] = self.world.broadcast_object(way)
        self._use(*self.precisions[phase.name])
        return self._precision

    def take(
        self,
        batch: Batch,
        plan: Plan,
        step: int,
        factor: float = 1.0,
        vote: Callable[[], StepVerdict] = lambda: StepVerdict.FINE,
        schedule: int | None = None,
    ) -> StepResult:
        """Take the 0-based step `step`.

        Args:
            batch: this rank's images, which may be none where other ranks have some.
            plan: of the run.
            step: says the rates and the random numbers.
            factor: what plateaus have left of the rates, 0..1.
            vote: see `MicroBatcher.backward`.
            schedule: the step whose rates are used; `step` by default.

        Returns:
            Its `sums` are float64 (2,): the sum of the weighted losses, and how many answers were right.

        Raises:
            TooLargeError: not even the smallest chunk fits.
        """
        optimizer.set_rates(self.optimizer, plan, step if schedule is None else schedule, factor)
        pictures, targets = memory.retry_out_of_memory(
            lambda: self._prepare(batch, step), self.device, "one batch of images"
        )
        outcome = self.micro.backward(
            (pictures, targets),
            self._loss,
            # Mixing moves weight between the images of a batch and keeps its sum.
            weight=float(self.task.weights(batch.labels).sum()),
            scale=self._scaler.scale,
            claim=lambda: optimizer.claim(self.optimizer),
            vote=vote,
            refuse_nan=self.settings.on_nan == "skip",
        )
        if outcome.images and outcome.verdict is not StepVerdict.NOT_A_NUMBER:
            self._update(step)
        self.optimizer.zero_grad(set_to_none=True)
        return outcome

    def rehearse(self, images: int) -> None:
        """A step on noise that moves nothing, to see how long it takes."""
        self._expect_steps()
        self._try(self._precision, images)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def answering(self, split_point: SplitPoint | None) -> nn.Module:
        """What is validated: the judged network, or what of it comes after the cut."""
        return self.judged if split_point is None else split_point.trainable_tail(self.judged)

    def put_head(self, head: LinearHead) -> None:
        """Take over a head that was solved for."""
        copy_head(head, self.network.head)
        if self.ema is not None:
            self.ema.module.load_state_dict(self.model.state_dict())

    def state(self) -> dict[str, Any]:
        """Weights, optimizer, scaler, what was chosen and found, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "ways": {phase: list(way) for phase, way in self.precisions.items()},
            "phase": self._phase,
            "ladder": self.micro.scheduler.state(),
            "inference": self.micro.inference_scheduler.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        options = [group["param_groups"][0].keys() for group in (self.optimizer.state_dict(), state["optimizer"])]
        if options[0] != options[1]:  # torch would find out only at the first step
            raise ValueError(f"it is not of the optimizer {self.settings.optimizer}")
        self.optimizer.load_state_dict(state["optimizer"])
        self.precisions = {phase: (chosen, layout) for phase, (chosen, layout) in state["ways"].items()}
        self._phase = state["phase"]
        if state["scaler"]:  # empty unless fp16 was in use
            self._use("fp16", "channels_last")
            self._scaler.load_state_dict(state["scaler"])
        self.micro.scheduler.restore(state["ladder"])
        self.micro.inference_scheduler.restore(state["inference"])

    def _prepare(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Pictures float (N, 3, S, S) in 0..1, augmented and mixed, or features, and targets, on the device."""
        if self._tail is not None:
            features = batch.images.to(self.device, non_blocking=True).float()
            return features, batch.labels.to(self.device, non_blocking=True)
        # Decoded pictures are (N, S, S, 3), which is channels_last memory once the axes are renamed.
        decoded, labels, factors = batch.images.permute(0, 3, 1, 2), batch.labels, batch.factors
        pictures = torch.empty(decoded.shape, dtype=torch.float32, device=self.device, memory_format=self._layout)
        for start in range(0, len(labels), PIECE):
            piece = slice(start, start + PIECE)
            raw = decoded[piece].to(self.device, non_blocking=True).float().div_(255)
            pictures[piece] = self.augment.apply(raw, factors[piece].to(self.device, non_blocking=True))
        targets = labels.to(self.device, non_blocking=True)
        if self.mixer is not None and self._mixes and len(labels):
            pictures, targets = self.mixer(pictures, targets, self.settings.seed, step)
        return pictures, targets

    def _loss(self, pictures: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A chunk's sum of losses; and it again beside the number of right answers."""
        with tapped(self.network.head if self.task.wants_features else None) as seen:
            logits = self._forward(pictures, self._precision).float()
        loss = self.task.loss(logits, targets, pictures, seen[-1] if seen else None)
        likeliest = targets if targets.ndim == 1 else targets.argmax(1)
        right = (logits.argmax(1) == likeliest).sum()
        return loss, torch.stack((loss.detach().double(), right.double()))

    def _forward(self, pictures: Tensor, chosen: str) -> Tensor:
        with precision.autocast(self.device, chosen):
            if self._tail is not None:
                if hasattr(self.model, "grad_checkpointing"):  # the suffix has a flag of its own
                    self._tail.grad_checkpointing = self.model.grad_checkpointing
                logits: Tensor = self._tail(pictures)
            else:
                logits = self.model((pictures - self._mean).div_(self._std))
        return logits

    def _update(self, step: int) -> None:
        """Move the weights, once."""
        if self.settings.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        memory.retry_out_of_memory(lambda: self._scaler.step(self.optimizer), self.device, "the optimizer's state")
        self._scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step)

    def _use(self, chosen: str, layout: str) -> None:
        self._precision = self.task.precision = chosen
        if self._scaler.is_enabled() != (chosen == "fp16"):
            self._scaler = torch.amp.GradScaler(self.device.type, enabled=chosen == "fp16")
        if self._layout != precision.LAYOUTS[layout]:
            self._layout = precision.LAYOUTS[layout]
            for model in filter(None, (self.model, self.ema and self.ema.module)):
                model.to(memory_format=self._layout)

    def _autotune_precision(self, phase: Phase) -> tuple[str, str]:
        """Precision and layout that are fastest for a chunk that fits; remembered for this machine."""
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        depends_on = {
            "model": self.settings.model, "shape": list(self._shape), "learns": phase.trainable, "device": gpu,
            "threads": torch.get_num_threads(), "batch_norm": self.settings.batch_norm, "torch": torch.__version__,
        }  # fmt: skip
        chosen, layout = memoized_on_disk("training step", depends_on, self._measure_precisions)
        return chosen, layout

    def _measure_precisions(self) -> list[str]:
        images = min(self.settings.batch_size, TRIAL)
        self._expect_steps()
        while True:
            seconds = self._seconds(images)
            if seconds is not None:
                return [*min(seconds.items(), key=lambda pair: pair[1])[0]]
            if images == 1:
                return ["fp32", "channels_last"]
            memory.release(self.device)
            images //= 2

    def _expect_steps(self) -> None:
        """Let what is timed have memory as nearly all steps have it."""
        if self.device.type == "cpu":
            malloc.retain_freed_memory()

    def _seconds(self, images: int) -> dict[tuple[str, str], float] | None:
        """Seconds of a step by precision and layout; None where memory runs out."""
        found: dict[tuple[str, str], float] = {}

        def step(chosen: str) -> None:
            self._try(chosen, images)

        try:
            for layout in precision.LAYOUTS:
                self._use("fp32", layout)
                tried = in_healthy_thread(lambda: precision.fastest(step, self.device))
                found |= {(chosen, layout): seconds for chosen, seconds in tried.items()}
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            self.optimizer.zero_grad(set_to_none=True)
            return None
        return found

    def _try(self, chosen: str, images: int) -> None:
        """Forward and back on noise, leaving weights, statistics and random state as they were."""
        batchnorm = self.micro.batchnorm
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            noise = torch.rand(images, *self._shape, device=self.device)
            noise = noise.to(memory_format=self._layout) if noise.ndim == 4 else noise
            with batchnorm.collecting(synchronized=False), batchnorm.chunk([images]):
                logits = self._forward(noise, chosen)
                logits.float().square().mean().backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)
