"""Results of an export of labels, as `lensmith data export` and `lensmith feedback export` print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmith.cli.output import SHOWN, print_line, print_notes, print_table
from lensmith.core.text import listed

if TYPE_CHECKING:
    from lensmith.data.label_export.export import LabelExport


def print_export(done: LabelExport) -> None:
    """Print the result of an export for people, with what to do next in the labelling tool."""
    unlabelled = done.pictures - done.labelled
    predicted = f", {done.predicted:,} with an answer of the model" if done.predicted else ""
    print_line(
        (str(done.out), "bold"),
        f": {done.pictures:,} pictures, {done.labelled:,} with a label, {unlabelled:,} without{predicted}",
    )
    if done.labelled:
        print_table("", ("class", "labels"), done.labels.items())
    print_notes(done.notes)
    if done.set_aside:
        print_table(f"{len(done.set_aside):,} left out", ("file", "reason"), done.set_aside, SHOWN)
    for line in _next(done):
        print_line(line)


def _next(done: LabelExport) -> list[str]:
    root = done.root.resolve()
    if done.format == "label-studio":
        return [
            "Next: start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root.parent};",
            f"paste {done.out / 'labeling-config.xml'} under Settings → Labeling Interface → Code;",
            f"add {root} as Local Files under Settings → Cloud Storage, and save it without a sync;",
            f"import {done.out / 'tasks.json'}.",
        ]
    if done.format == "cvat":
        files = [name for name in done.files if name.endswith(".xml")]
        upload = f"upload {done.out / files[0]} as CVAT 1.1."
        if len(files) > 1:
            upload = f"upload each of {listed(files, 3)} as CVAT 1.1, into a job of that annotator."
        return [
            f"Next: make a task in CVAT with {done.out / 'labels.json'} as its labels (under Raw) and the pictures of",
            f"{root}; then {upload}",
        ]
    return [f"Next: lensmith data check {done.out}"] if done.format == "imagenet" else []
