"""The learner: a network with its optimizer, loss and EMA, and the training step that moves its weights once.

batch ─► augmented and mixed ─► micro-batch step (loss, gradients) ─► clipping, optimizer, EMA
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training import optimizer, precision
from lensmith.training.batch_inputs import BatchInputs
from lensmith.training.dataloading import augment
from lensmith.training.dataloading.dataset import Batch
from lensmith.training.dataloading.mixup import Mixer
from lensmith.training.feature_cache.split_model import SplitPoint
from lensmith.training.feature_distillation import feature_hook
from lensmith.training.forward_pass import ForwardPass
from lensmith.training.linear_probe.fit import copy_head
from lensmith.training.linear_probe.lbfgs import LinearHead
from lensmith.training.loss import task_of
from lensmith.training.microbatch import memory
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.distributed import World
from lensmith.training.microbatch.microbatch import MicroBatcher, StepResult
from lensmith.training.models.backbone import Network
from lensmith.training.models.fold_batchnorm import BatchNormFolding
from lensmith.training.schedule import Phase, TrainingSchedule
from lensmith.training.trial_steps import TrialSteps


class Learner:
    """A network with all that changes when it learns; `state` is what a checkpoint needs of it.

    Args:
        network: the network, as `backbone.build` made it.
        labels: class names, in order.
        counts: number of training images by class number.

    Attributes:
        model: the network's module, on the device.
        ema: the exponential moving average (EMA) of its weights and buffers; None: there is none.
        task: the loss.
        micro: the micro-batcher, which fits a step into memory.
        forward: the network as the present phase runs it.
        precisions: precision and memory layout by phase, once they are chosen.
        image_size: pixels a side in the present phase.
    """

    def __init__(
        self,
        network: Network,
        settings: TrainSettings,
        preprocessing: Preprocessing,
        labels: Sequence[str],
        counts: Counter[int],
        device: torch.device,
        world: World | None = None,
    ) -> None:
        self.network, self.settings, self.device, self.world = network, settings, device, world or World()
        self.model: nn.Module = network.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optimizer.build(network, settings)
        # The decay warms up, 1 - (1 + step) ** (-2/3) at most, so that the first weights are soon forgotten.
        self.ema = ModelEmaV3(self.model, decay=settings.ema, use_warmup=True) if settings.ema else None
        mixer = Mixer(settings.mixup, settings.cutmix, len(labels)) if settings.mixup or settings.cutmix else None
        self.inputs = BatchInputs(augment.build(settings, preprocessing.image_size), mixer, settings.seed, device)
        self.task = task_of(settings, labels, counts, device, network)
        self.micro = MicroBatcher(
            self.model,
            min_chunk=settings.min_chunk,
            max_chunk=settings.batch_size if settings.accumulate > 1 else None,  # gradient accumulation
            tile=settings.batch_norm_tile,
            checkpointing=settings.checkpointing,
            world=self.world,
            sync_batch_norm=settings.sync_batch_norm,
        )
        self.forward = ForwardPass(self.model, preprocessing, device)
        self.precisions: dict[str, tuple[str, str]] = {}
        self.folding = BatchNormFolding(self.model, preprocessing.image_size)
        self.image_size = preprocessing.image_size
        self._phase = ""
        self._scaler = torch.amp.GradScaler(device.type, enabled=False)

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is validated and saved as the best: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def enter(self, phase: Phase, split_point: SplitPoint | None = None) -> str:
        """Freeze what the phase freezes and settle its precision, by trial unless the settings name one.

        Args:
            phase: the phase to be trained.
            split_point: the split point where features enter; None: batches are images.

        Returns:
            The precision.
        """
        self.network.freeze(phase.trainable, self.settings.batch_norm == "frozen")
        self.folding.fold()
        self.inputs.mixes = not phase.is_head_warmup
        if phase.name == self._phase:  # resumed in the middle of it
            self.micro.refresh()
        else:
            self.micro.restart()
        self._phase, self.image_size = phase.name, phase.image_size or self.image_size
        self.forward.enter_at(split_point, self.image_size)
        if phase.name not in self.precisions:
            wanted = self.settings.precision
            # A head alone is too little for a trial.
            chosen: tuple[str, str] = ("fp32" if wanted == "auto" else wanted, "channels_last")
            if wanted == "auto" and len(self.forward.input_shape) > 1:
                chosen = self.trial_steps().fastest(self.settings, phase)
            self.precisions[phase.name] = self.world.broadcast_object(chosen)
        self._use(*self.precisions[phase.name])
        return self.forward.precision

    def training_step(
        self,
        batch: Batch,
        schedule: TrainingSchedule,
        step: int,
        factor: float = 1.0,
        vote: Callable[[], StepVerdict] = lambda: StepVerdict.FINE,
        rate_step: int | None = None,
    ) -> StepResult:
        """Take the 0-based step `step`.

        Args:
            batch: this rank's images, which may be none where other ranks have some.
            schedule: the run's schedule.
            step: the 0-based step, which random numbers and rates follow.
            factor: the share of the rates that plateaus have left, 0..1.
            vote: this rank's vote, asked when its chunks are done; see `MicroBatcher.backward`.
            rate_step: the step whose rates are used; `step` by default.

        Returns:
            Its `sums` are float64 (2,): the sum of the weighted losses, and the number of correct answers.

        Raises:
            TooLargeError: not even the smallest chunk fits.
        """
        optimizer.set_rates(self.optimizer, schedule, step if rate_step is None else rate_step, factor)
        inputs, targets = memory.retry_out_of_memory(
            lambda: self._prepare(batch, step), self.device, "one batch of images"
        )
        outcome = self.micro.backward(
            (inputs, targets),
            self._loss,
            # Mixing moves weight between the images of a batch and does not change its sum.
            weight=float(self.task.weights(batch.labels).sum()),
            scale=self._scaler.scale,
            claim=lambda: optimizer.allocate_state(self.optimizer),
            vote=vote,
            refuse_nan=self.settings.on_nan == "skip",
        )
        if outcome.images and outcome.verdict is not StepVerdict.NOT_A_NUMBER:
            self._update_weights(step)
        self.optimizer.zero_grad(set_to_none=True)
        return outcome

    def trial_steps(self) -> TrialSteps:
        """Steps on noise as the present phase would take them, which change nothing."""
        return TrialSteps(self.forward, self.micro)

    def validation_model(self, split_point: SplitPoint | None) -> nn.Module:
        """The evaluated network, or its tail behind the split point `split_point`."""
        return self.evaluated_model if split_point is None else split_point.trainable_tail(self.evaluated_model)

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
            "ways": {phase: list(pair) for phase, pair in self.precisions.items()},
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
        if self.forward.tail is not None:
            return self.inputs.of_features(batch)
        return self.inputs.of_images(batch, step, self.forward.layout)

    def _loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A chunk's sum of losses; and float64 (2,): it again, and the number of correct answers."""
        with feature_hook(self.network.head if self.task.wants_features else None) as seen:
            logits = self.forward(inputs).float()
        loss = self.task.loss(logits, targets, inputs, seen[-1] if seen else None)
        likeliest = targets if targets.ndim == 1 else targets.argmax(1)
        correct = (logits.argmax(1) == likeliest).sum()
        return loss, torch.stack((loss.detach().double(), correct.double()))

    def _update_weights(self, step: int) -> None:
        if self.settings.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        memory.retry_out_of_memory(lambda: self._scaler.step(self.optimizer), self.device, "the optimizer's state")
        self._scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step)

    def _use(self, chosen: str, layout: str) -> None:
        """Mixed precision from now on: number format, loss scaling for fp16, and memory layout."""
        self.forward.use(chosen, layout)
        self.task.precision = chosen
        if self._scaler.is_enabled() != (chosen == "fp16"):
            self._scaler = torch.amp.GradScaler(self.device.type, enabled=chosen == "fp16")
        if self.ema is not None:
            self.ema.module.to(memory_format=precision.LAYOUTS[layout])
