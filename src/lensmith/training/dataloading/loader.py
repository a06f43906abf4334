"""Data-loader workers: processes that decode batches, ignore signals meant for the run, and end with it."""

import os
import signal
import threading
from typing import Any

import torch
from torch.utils.data import DataLoader

from lensmith.core.machine import allowed_cores
from lensmith.errors import RunError
from lensmith.imaging.silence import silence_pillow
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.microbatch import malloc
from lensmith.training.microbatch.memory import TooLargeError, is_out_of_memory, lift_cap
from lensmith.training.signals import EXIT_CODES, blocked_signals

_KNOWS_SENDERS = hasattr(signal, "sigwaitinfo")
"""Whether a worker can find out which process sent a signal; not on macOS."""

_WORKER_LOST = ("Caught MemoryError", "MemoryError: ", "is killed by signal", "exited unexpectedly")
"""Parts of torch's messages about a worker that ran out of memory, or was killed for it."""


def default_loader_workers(device: torch.device, processes: int = 1) -> int:
    """Number of data-loader workers that measured well: all cores beside a GPU; half of them where the CPU trains.

    Each of `processes` ranks on this machine gets its share of the cores.
    """
    cores = allowed_cores() // processes
    return min(8, cores) if device.type == "cuda" else min(4, cores // 2)


def build_loader(dataset: ImageDataset, order: EpochSampler, workers: int, device: torch.device) -> DataLoader[Any]:
    """A loader of batches in the order of `order`, decoded by `workers` processes that live as long as the loader.

    Batches hold tensors of the dtypes and shapes that `Batch` describes.
    """
    return _Loader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=dataset.collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_init_worker,
        # Each pass draws a seed for the workers. From torch's global generator, a resumed run would draw one more.
        generator=torch.Generator(),
    )


class _Loader(DataLoader[Any]):
    """A DataLoader that translates its workers' failures, and whose workers end only by the parent's signals."""

    def __iter__(self) -> Any:
        try:
            yield from self._start()
        except (MemoryError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1:]
            if not is_out_of_memory(error) and not any(sign in str(error) for sign in _WORKER_LOST):
                raise
            kind = TooLargeError if is_out_of_memory(error) else RunError
            raise kind(
                "Batches of decoded images were expected.",
                f"They could not be had ({' '.join(reason) or type(error).__name__}).",
                "Use fewer workers (--loader-workers 0), smaller batches or images, or a machine with more memory.",
            ) from error

    def _start(self) -> Any:
        """Start the workers with these signals blocked in all their threads, also those that libraries start."""
        if not _KNOWS_SENDERS:
            return super().__iter__()
        with blocked_signals():
            return super().__iter__()


def close_loader(batches: DataLoader[Any]) -> None:
    """End a loader's workers now; else they live as long as a traceback that refers to it, in a notebook for hours."""
    iterator = batches._iterator  # torch offers no public way
    if iterator is not None:
        iterator._shutdown_workers()  # type: ignore[attr-defined]
        batches._iterator = None


def _init_worker(worker: int) -> None:
    """Ignore Ctrl-C and a closed terminal, and SIGTERM from any process but the parent.

    They often reach the whole process group, and the training loop needs its batches up to the next step.
    """
    lift_cap()
    malloc.restore_defaults()  # else freed memory would be retained here as in the parent
    silence_pillow()
    for number in EXIT_CODES.keys() - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if _KNOWS_SENDERS:
        threading.Thread(target=_exit_for_the_parent, daemon=True).start()


def _exit_for_the_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
