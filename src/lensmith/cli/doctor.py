"""`lensmith doctor`: the state of this machine, and how to mend it."""

from __future__ import annotations

import typer
from typer.main import get_command

from lensmith import api
from lensmith.cli.options import Json
from lensmith.cli.output import print_json, say

MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "problem": ("✗", "red")}

_app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@_app.command()
def doctor(as_json: Json = False) -> None:
    """Look at this machine, and say how to mend what is wrong.

    Exits with 1 where something is so wrong that some verb cannot work, else with 0.
    """
    diagnosis = api.doctor()
    if as_json:
        print_json(diagnosis.as_dict())
    else:
        width = max(len(finding.name) for finding in diagnosis.findings)
        group = ""
        for finding in diagnosis.findings:
            if finding.group != group:
                group = finding.group
                say((group, "bold"))
            say("  ", MARKS[finding.status], f" {finding.name.ljust(width)}  {finding.value}")
            if finding.remedy:
                say((f"      → {finding.remedy}", "yellow"))
        say(f"\n{_counted(diagnosis.count('problem'), 'problem')}, {_counted(diagnosis.count('note'), 'note')}")
    if diagnosis.status == "problem":
        raise typer.Exit(1)


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


command = get_command(_app)
