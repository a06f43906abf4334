"""Data-loader workers: processes that decode batches, end with the run, and report a lack of memory in plain words."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import torch
from torch.utils.data import DataLoader

from lensmith.core.machine import allowed_cores
from lensmith.errors import RunError
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.microbatch import malloc
from lensmith.training.microbatch.memory import is_out_of_memory, lift_cap

_TELLS_SENDERS = hasattr(signal, "sigwaitinfo")
"""Whether a worker can tell who sent it a signal; macOS cannot."""

_WORKER_LOST = ("Caught MemoryError", "MemoryError: ", "is killed by signal", "exited unexpectedly")
"""What torch says of a worker that ran out of memory, or was killed for it."""


def default_loader_workers(device: torch.device, processes: int = 1) -> int:
    """Data processes that measured well: on a GPU the cores allowed; on a CPU half of them, as it also trains.

    Args:
        device: that trains.
        processes: that train on this machine and share its cores.
    """
    cores = allowed_cores() // processes
    return min(8, cores) if device.type == "cuda" else min(4, cores // 2)


def build_loader(dataset: ImageDataset, order: EpochSampler, workers: int, device: torch.device) -> DataLoader[Any]:
    """Batches in the order of `order`, decoded by `workers` processes that live as long as the loader."""
    return _Loader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=dataset.collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_obey_the_parent_alone,
        # Each pass draws a seed for the workers. From torch's own stream, a resumed run would draw one more.
        generator=torch.Generator(),
    )


class _Loader(DataLoader[Any]):
    """Says in plain words when its workers fail, and starts them so that no signal but the parent's ends them."""

    def __iter__(self) -> Any:
        try:
            yield from self._begin()
        except (MemoryError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1:]
            if not is_out_of_memory(error) and not any(sign in str(error) for sign in _WORKER_LOST):
                raise
            raise RunError(
                "Batches of decoded images were expected.",
                f"They could not be had ({' '.join(reason) or type(error).__name__}).",
                "Use fewer workers (--loader-workers 0), smaller batches or images, or a machine with more memory.",
            ) from error

    def _begin(self) -> Any:
        """With Ctrl-C and SIGTERM held back in every thread of the workers', also those that libraries start."""
        if not _TELLS_SENDERS:
            return super().__iter__()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def close_loader(batches: DataLoader[Any]) -> None:
    """End a loader's processes now; else they live as long as a traceback that leads to it, in a notebook for hours."""
    iterator = batches._iterator  # torch offers no public way
    if iterator is not None:
        iterator._shutdown_workers()  # type: ignore[attr-defined]
        batches._iterator = None


def _obey_the_parent_alone(worker: int) -> None:
    """Ctrl-C and SIGTERM often reach the whole process group, and the loop needs its batches up to the next step."""
    lift_cap()
    malloc.restore_defaults()  # the heap that the parent keeps for its steps would be held here, too
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _TELLS_SENDERS:
        threading.Thread(target=_exit_for_the_parent, daemon=True).start()


def _exit_for_the_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
