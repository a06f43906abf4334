"""Doctor: checks of this machine's software, hardware and limits, with a remedy for each problem.

Every optional package may be missing; what cannot be checked is left out rather than guessed.
"""

from lensmith.ops.doctor import hardware, limits, software
from lensmith.ops.doctor.findings import Diagnosis, MachineFinding

__all__ = ["Diagnosis", "MachineFinding", "examine"]


def examine() -> Diagnosis:
    """Run all checks; this takes a few seconds if torch has to be imported."""
    torch, software_findings = software.check_software()
    return Diagnosis((*software_findings, *hardware.check_hardware(torch), *limits.check_limits()))
