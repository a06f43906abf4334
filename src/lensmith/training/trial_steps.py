"""Trial steps on noise: how long a step takes, and precision autotuning, which finds what is fastest here.

A trial changes no weights, no statistics and no random state.
"""

from collections.abc import Mapping

import torch

from lensmith.config import TrainSettings
from lensmith.core.memoized import memoized_on_disk
from lensmith.training import precision
from lensmith.training.forward_pass import ForwardPass
from lensmith.training.microbatch import malloc, memory
from lensmith.training.microbatch.microbatch import MicroBatcher
from lensmith.training.microbatch.onednn_workaround import in_healthy_thread
from lensmith.training.schedule import Phase

TIE = 0.05
"""Steps whose seconds differ by a smaller share count as equally fast: another trial may reverse their order."""

MOST_IMAGES = 16
"""Images of a trial step at most; half as many, and so on, where memory runs out."""


class TrialSteps:
    """Forward and backward passes on noise, through the network as the present phase runs it."""

    def __init__(self, forward: ForwardPass, micro: MicroBatcher) -> None:
        self.forward, self.micro, self.device = forward, micro, forward.device

    def run(self, images: int) -> None:
        """One trial step with so many images, at the present precision and layout, timed as a real one would be."""
        self._prepare_memory()
        self._step(self.forward.precision, images)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def fastest(self, settings: TrainSettings, phase: Phase) -> tuple[str, str]:
        """Precision autotuning: the phase's fastest precision and memory layout, measured once on this machine.

        Returns:
            Precision (fp32, bf16 or fp16) and layout (channels_last or channels_first).
        """
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        depends_on = {
            "model": settings.model, "shape": list(self.forward.input_shape), "learns": phase.trainable, "device": gpu,
            "threads": torch.get_num_threads(), "batch_norm": settings.batch_norm, "torch": torch.__version__,
        }  # fmt: skip
        chosen, layout = memoized_on_disk("training step", depends_on, lambda: self._measure(settings.batch_size))
        return chosen, layout

    def _measure(self, batch_size: int) -> list[str]:
        images = min(batch_size, MOST_IMAGES)
        self._prepare_memory()
        while True:
            seconds = self._seconds(images)
            if seconds is not None:
                return [*exact_among_fastest(seconds)]
            if images == 1:
                return ["fp32", "channels_last"]
            memory.release(self.device)
            images //= 2

    def _prepare_memory(self) -> None:
        """Let what is timed have memory as nearly all steps have it."""
        if self.device.type == "cpu":
            malloc.retain_freed_memory()

    def _seconds(self, images: int) -> dict[tuple[str, str], float] | None:
        """Seconds of a step by precision and layout; None where memory runs out."""
        found: dict[tuple[str, str], float] = {}
        try:
            for layout in precision.LAYOUTS:
                self.forward.use("fp32", layout)
                tried = in_healthy_thread(
                    lambda: precision.fastest(lambda chosen: self._step(chosen, images), self.device)
                )
                found |= {(name, layout): seconds for name, seconds in tried.items()}
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            self.forward.model.zero_grad(set_to_none=True)
            return None
        return found

    def _step(self, chosen: str, images: int) -> None:
        forward, batchnorm = self.forward, self.micro.batchnorm
        before, forward.precision = forward.precision, chosen
        try:
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                noise = torch.rand(images, *forward.input_shape, device=self.device)
                noise = noise.to(memory_format=forward.layout) if noise.ndim == 4 else noise
                with batchnorm.collecting(synchronized=False), batchnorm.chunk([images]):
                    forward(noise).float().square().mean().backward()  # type: ignore[no-untyped-call]
        finally:
            forward.precision = before
        forward.model.zero_grad(set_to_none=True)


def exact_among_fastest(seconds: Mapping[tuple[str, str], float]) -> tuple[str, str]:
    """Of the precisions and layouts that are as fast as the fastest, within TIE, fp32 if it is among them.

    Args:
        seconds: (precision, layout) → seconds of a step; the earlier of two is preferred.
    """
    fastest = min(seconds.values())
    level = [pair for pair, taken in seconds.items() if (1 - TIE) * taken <= fastest]
    return next((pair for pair in level if pair[0] == "fp32"), level[0])
