"""`lensmith doctor`: the state of this machine, with a remedy for each problem."""

import typer

from lensmith import api
from lensmith.cli.options import Json, make_command
from lensmith.cli.output import print_json, print_line

MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "problem": ("✗", "red")}


def doctor(as_json: Json = False) -> None:
    """Check this machine, and print a remedy for each problem.

    Exits with 1 if a problem keeps some verb from working, else with 0.
    """
    diagnosis = api.doctor()
    if as_json:
        print_json(diagnosis)
    else:
        width = max(len(finding.name) for finding in diagnosis.findings)
        group = ""
        for finding in diagnosis.findings:
            if finding.group != group:
                group = finding.group
                print_line((group, "bold"))
            print_line("  ", MARKS[finding.status], f" {finding.name.ljust(width)}  {finding.value}")
            if finding.remedy:
                print_line((f"      → {finding.remedy}", "yellow"))
        print_line(f"\n{_counted(diagnosis.count('problem'), 'problem')}, {_counted(diagnosis.count('note'), 'note')}")
    if diagnosis.status == "problem":
        raise typer.Exit(1)


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


command = make_command(doctor)
