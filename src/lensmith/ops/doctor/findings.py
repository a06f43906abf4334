"""What a look at the machine brings back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        group: heading it stands under.
        name: what was looked at.
        value: what was found, in words.
        status: `note` is worth mending; with a `problem` some verb cannot work.
        remedy: how to mend it; empty where all is well.
        facts: the same as `value` for programs, under names of their own; bytes and cores as numbers.
    """

    group: str
    name: str
    value: str
    status: Status = "ok"
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order they are shown."""

    findings: tuple[Finding, ...]

    def count(self, status: Status) -> int:
        """How many findings have this status."""
        return sum(finding.status == status for finding in self.findings)

    @property
    def status(self) -> Status:
        """The worst of all."""
        return "problem" if self.count("problem") else "note" if self.count("note") else "ok"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: status, the facts of every finding by name, and the findings in words."""
        facts = {name: value for finding in self.findings for name, value in finding.facts.items()}
        words = [
            {"group": f.group, "name": f.name, "value": f.value, "status": f.status, "remedy": f.remedy or None}
            for f in self.findings
        ]
        return {"status": self.status, **facts, "findings": words}


def gigabytes(count: float) -> str:
    """Bytes in words, in powers of ten."""
    return f"{count / 1e9:.1f} GB"
