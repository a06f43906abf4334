"""Findings of the doctor: one for each check of the machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class MachineFinding:
    """Result of one check of the machine.

    Attributes:
        group: heading under which the finding is shown.
        name: name of the checked property.
        value: measured value as text.
        remedy: advice on how to fix it; empty if nothing is wrong.
        facts: values for programs, by name; sizes in bytes.
        problem: whether some verb cannot work because of it.
    """

    group: str
    name: str
    value: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    problem: bool = False

    @property
    def status(self) -> Status:
        """`ok`, `note` if there is a remedy, or `problem`."""
        return "problem" if self.problem else "note" if self.remedy else "ok"


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order in which they are shown."""

    findings: tuple[MachineFinding, ...]

    def count(self, status: Status) -> int:
        """Number of findings with this status."""
        return sum(finding.status == status for finding in self.findings)

    @property
    def status(self) -> Status:
        """The worst status of all findings."""
        return "problem" if self.count("problem") else "note" if self.count("note") else "ok"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: status, the facts of all findings by name, and the findings as text."""
        facts = {name: value for finding in self.findings for name, value in finding.facts.items()}
        findings = [
            {"group": f.group, "name": f.name, "value": f.value, "status": f.status, "remedy": f.remedy or None}
            for f in self.findings
        ]
        return {"status": self.status, **facts, "findings": findings}


def gigabytes(count: float) -> str:
    """Bytes as text in GB of 10⁹ bytes."""
    return f"{count / 1e9:.1f} GB"
