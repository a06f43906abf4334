"""Look at this machine: what training and serving will find here, and how to mend what stands in their way.

Every optional package may be missing; what cannot be looked at is left out rather than guessed.
"""

from __future__ import annotations

from lensmith.ops.doctor import hardware, limits, software
from lensmith.ops.doctor.findings import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "examine"]


def examine() -> Diagnosis:
    """Everything at once; takes a few seconds where torch has to be imported."""
    torch, software_findings = software.look()
    return Diagnosis((*software_findings, *hardware.look(torch), *limits.look()))
