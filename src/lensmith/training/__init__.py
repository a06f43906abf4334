"""Fine-tuning: our own loop on plain PyTorch.

`lensmith.training.MicroBatcher` is the part for loops of one's own; see `lensmith.training.microbatch.microbatch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensmith.training.microbatch.microbatch import MicroBatcher as MicroBatcher

__all__ = ["MicroBatcher"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # not before it is asked for: it loads torch
        from lensmith.training.microbatch.microbatch import MicroBatcher

        return MicroBatcher
    raise AttributeError(f"module 'lensmith.training' has no attribute {name!r}")
