"""`lensmith review`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from lensmith import api
from lensmith.cli.options import Output, command_for
from lensmith.cli.output import print_line
from lensmith.config import ReviewSettings

if TYPE_CHECKING:
    from lensmith.curation.reviewing.outcome import ReviewResult


def review(given: dict[str, Any]) -> Output:
    """Look at pictures in the browser, and decide on their labels with the keyboard.

    SOURCE may be an image folder, a manifest, a work list, the mistakes of an evaluation, uploads that a service has
    stored, or pictures without labels. Every decision is appended to a journal at once; the same command resumes. The
    result is a manifest with its history beside it. No picture is moved or changed.

    Example: `lensmith review photos --bundle runs/photos/bundle --out reviewed.csv`
    """
    done = api.review(**given)
    yield done
    counts = f"{done.changed:,} changed, {done.skipped:,} skipped, {done.contested:,} contested"
    pictures = f"{done.decided:,} of {done.pictures:,} pictures decided"
    print_line((str(done.out), "bold"), f": {done.written:,} lines; {pictures}, {counts}")
    for name, count in done.reviewers.items():
        print_line(f"{name}: {count:,} pictures")
    if done.excluded is not None:
        print_line(f"Left out, for --exclude: {done.excluded}")
    print_line(f"History: {done.history}")
    if done.contested:
        print_line(f"Next: lensmith data agreement {done.out}")
    elif done.written:
        print_line(f"Next: lensmith {_next(done)}")


def _next(done: ReviewResult) -> str:
    """Arguments of the command that uses the result."""
    lists = f"--relabel {shlex.quote(str(done.out))}"
    if done.excluded is not None:
        lists += f" --exclude {shlex.quote(str(done.excluded))}"
    if done.kind == "uploads":
        return f"feedback export {shlex.quote(str(done.source))} photos-new {lists}"
    return f"train DIR {lists}" if done.kind == "list" else f"data split {shlex.quote(str(done.out))}"


command = command_for(ReviewSettings, review)
