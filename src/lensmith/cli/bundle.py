"""`lensmith bundle`: show a bundle, verify its engines on this machine, compare two bundles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.engines import print_engines
from lensmith.cli.options import Output, group
from lensmith.cli.output import print_line, print_table

if TYPE_CHECKING:
    from lensmith.bundle.drift import Reference

WIDTH = 32
"""Longest value in a table, in characters; --json has all of it."""

_MARKS = {"right": ("✓", "green"), "wrong": ("✗", "red"), "unavailable": ("–", "yellow"), "absent": ("–", "yellow")}
_STATES = {"right": "answers correctly", "wrong": "WRONG", "unavailable": "cannot be run here", "absent": "not in it"}
_Path = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder or zip, or NAME@ALIAS.")]


def show(bundle: _Path) -> Output:
    """Show the content of a bundle.

    Schema and hashes are verified first. The engines are not run; `lensmith bundle verify` runs them.
    """
    described = api.describe(bundle)
    yield described
    manifest = described.manifest
    content = manifest.model_dump(mode="json")
    print_line((f"{manifest.name} {manifest.version}", "bold"), f"  {manifest.created:%Y-%m-%d %H:%M} UTC")
    print_line(f"  labels         {len(manifest.labels):,}: {_cut(', '.join(manifest.labels), 120)}")
    for name in ("preprocessing", "metrics", "parity", "calibration", "abstention", "judged", "dataset", "licence"):
        if content[name]:
            print_line(f"  {name:13}  {_listed(content[name])}")
    if manifest.reference is not None:
        print_line(f"  reference      {_reference(manifest.reference)}")
    if manifest.temperature != 1:
        print_line(f"  temperature    {_shown(manifest.temperature)}")
    print_line(("Engines", "bold"))
    print_engines(manifest)
    if manifest.machine:
        print_line(f"measured on {_listed(content['machine'])}")
    print_table("Files", ("file", "bytes"), sorted(described.bytes.items()))
    print_line(f"{described.golden_samples} golden samples, {_listed(manifest.versions)}")


def verify(bundle: _Path) -> Output:
    """Verify schema, hashes, and every engine on the golden samples.

    Exits with 2 if something is wrong, or if no engine of the bundle runs on this machine.
    """
    verified = api.verify(bundle)
    yield verified
    count, samples = len(verified.manifest.files), verified.golden_samples
    print_line(
        (f"{verified.manifest.name} {verified.manifest.version}", "bold"), f"  schema and {count} files as exported"
    )
    for answer in verified.answers:
        reason = f": {answer.reason}" if answer.reason else f", {samples} golden samples"
        print_line("  ", _MARKS[answer.state], f" {answer.engine} {_STATES[answer.state]}{reason}")
    if verified.problem:
        raise verified.problem


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="Bundle folder or zip, or NAME@ALIAS.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Bundle to compare it with.")],
) -> Output:
    """Compare two bundles.

    Compares labels, preprocessing, metrics, engines, settings, data and files. Exits with 0 whether they differ or not;
    `equal` in the JSON is true or false.
    """
    found = api.diff(a, b)
    yield found
    if not found.changes:
        print_line(("The bundles are equal", "green"), f": {a} and {b} have the same bundle.json and the same files.")
        return
    rows = [
        (
            change.section,
            change.what,
            _shown(change.a),
            _shown(change.b),
            "" if change.delta is None else f"{change.delta:+.4g}",
        )
        for change in found.changes
    ]
    print_line("A  ", (str(a), "bold"))
    print_line("B  ", (str(b), "bold"))
    print_table("", ("where", "what", "A", "B", "B − A"), rows)
    if any(change.section == "metrics" for change in found.changes):
        print_line(
            "Each bundle's metrics are of its own validation part, on which it was chosen. Compare both on images that "
            "neither knows: lensmith evaluate"
        )


def _reference(reference: Reference) -> str:
    """The drift reference in one line, without its numbers for each class and feature."""
    count = len(reference.feature_means)
    features = f"{count:,} features of {reference.feature_images:,}" if count else "no features"
    return (
        f"part {reference.part}, images {reference.images:,}, 99 % of them answered with a confidence of at least "
        f"{reference.low_confidence:.3g}, {features}"
    )


def _listed(values: Mapping[str, Any]) -> str:
    present = {name: value for name, value in values.items() if value not in (None, [], {})}
    return ", ".join(
        f"{name} ({_listed(value)})" if isinstance(value, Mapping) else f"{name} {_shown(value)}"
        for name, value in present.items()
    )


def _shown(value: Any) -> str:
    """A plain value as text for a table's cell; a mapping that only one bundle has is `there`."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return "there"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return _cut(f"[{', '.join(map(_shown, value))}]", WIDTH)
    return _cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), WIDTH)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


command = group(VERBS["bundle"], show=show, verify=verify, diff=diff)
