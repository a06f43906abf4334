"""Fine-tuning: our own loop on plain PyTorch.

`lensmith.train.MicroBatcher` is the part for loops of one's own; see `lensmith.train.transaction.microbatch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensmith.train.transaction.microbatch import MicroBatcher as MicroBatcher

__all__ = ["MicroBatcher"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # not before it is asked for: it loads torch
        from lensmith.train.transaction.microbatch import MicroBatcher

        return MicroBatcher
    raise AttributeError(f"module 'lensmith.train' has no attribute {name!r}")
