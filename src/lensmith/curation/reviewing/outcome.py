"""The result of a review: a manifest, the pictures that were left out, and the history, as CSV files beside each other.

    reviewed.csv            path,label[,split][,group][,fold],annotator; a line for each reviewer of a picture
    reviewed.excluded.csv   path,reviewer of pictures that belong to no class, for `--exclude`
    reviewed.history.csv    time,reviewer,path,action,before,after: every decision, oldest first

A labelled set gives a whole manifest, in which pictures that nobody decided on keep their label; a list gives the
pictures that were decided on alone. Paths are relative to the folder of the manifest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lensmith.core.csv_text import csv_text, paths_from
from lensmith.core.files import atomic_write
from lensmith.core.result import Result
from lensmith.curation.reviewing.items import ReviewSource
from lensmith.curation.reviewing.journal import LabelDecision

Decided = Mapping[int, Mapping[str, LabelDecision]]
"""Position of an item → reviewer → the decision that counts."""


@dataclass(frozen=True)
class ReviewResult(Result):
    """Result of a review.

    Attributes:
        source: path of what was reviewed.
        out: path of the manifest.
        journal: path of the journal.
        history: path of the CSV with every decision.
        excluded: path of the CSV with pictures that were left out; None where none was.
        kind: `set` (the manifest is whole), `list` (it corrects labels of a set), `new` (its pictures had no label) or
            `uploads` (it is for `lensmith feedback export`).
        pictures: number of pictures in the source.
        written: number of lines in the manifest.
        decided: number of pictures with a decision.
        changed: number of pictures whose label is another one now, or that were left out.
        skipped: number of pictures that every reviewer skipped.
        contested: number of pictures that reviewers label differently.
        unlabelled: number of pictures without a label, which are not in the manifest.
        reviewers: name of each reviewer → number of pictures.
        notes: sentences about what was left out.
    """

    source: Path
    out: Path
    journal: Path
    history: Path
    excluded: Path | None
    kind: str
    pictures: int
    written: int
    decided: int
    changed: int
    skipped: int
    contested: int
    unlabelled: int
    reviewers: dict[str, int]
    notes: tuple[str, ...] = ()


def journal_of(out: Path) -> Path:
    """Path of the journal that belongs to a manifest."""
    return out.with_name(f"{out.stem}.journal.jsonl")


def write(
    source: ReviewSource, decided: Decided, decisions: Sequence[LabelDecision], out: Path, sync: bool = True
) -> int:
    """Write the manifest and the CSV files beside it, each whole or not at all.

    Args:
        source: pictures that are reviewed.
        decided: decisions that count.
        decisions: every decision, for the history.
        out: path of the manifest.
        sync: whether to wait until they are on disk.

    Returns:
        Number of lines in the manifest.

    Raises:
        OSError: a folder that is missing, read-only or full.
    """
    base = paths_from(source.root, out.parent)
    rows = [
        (base(item.path), label, item.split, item.group, item.fold, annotator)
        for position, item in enumerate(source.items)
        for annotator, label in _labels(source, position, decided)
    ]
    columns = ("path", "label", "split", "group", "fold", "annotator")
    atomic_write(out, csv_text(columns, rows, optional=("split", "group", "fold")), sync=sync)
    excluded = [
        (base(source.items[position].path), each.by)
        for position in sorted(decided)
        if (each := _excluded(decided[position])) is not None
    ]
    beside = out.with_name(f"{out.stem}.excluded.csv")
    if excluded:
        atomic_write(beside, csv_text(("path", "reviewer"), excluded), sync=sync)
    else:
        beside.unlink(missing_ok=True)
    history = [(each.at, each.by, base(each.path), each.action, each.before, each.label) for each in decisions]
    named = ("time", "reviewer", "path", "action", "before", "after")
    atomic_write(out.with_name(f"{out.stem}.history.csv"), csv_text(named, history), sync=sync)
    return len(rows)


def result(
    source: ReviewSource, decided: Decided, out: Path, written: int, notes: tuple[str, ...] = ()
) -> ReviewResult:
    """Figures of a review whose files have been written.

    Args:
        source: pictures that are reviewed.
        decided: decisions that count.
        out: path of the manifest.
        written: number of lines in the manifest.
        notes: sentences about what was left out.
    """
    counts = counted(source, decided)
    reviewers: dict[str, int] = {}
    for by in decided.values():
        for name in by:
            reviewers[name] = reviewers.get(name, 0) + 1
    excluded = out.with_name(f"{out.stem}.excluded.csv")
    return ReviewResult(
        source=source.path,
        out=out,
        journal=journal_of(out),
        history=out.with_name(f"{out.stem}.history.csv"),
        excluded=excluded if excluded.exists() else None,
        kind=source.kind,
        pictures=len(source.items),
        written=written,
        decided=counts["decided"],
        changed=counts["changed"],
        skipped=counts["skipped"],
        contested=counts["contested"],
        unlabelled=sum(
            not item.label and not _without_skips(decided.get(position, {}))
            for position, item in enumerate(source.items)
        ),
        reviewers=dict(sorted(reviewers.items())),
        notes=notes,
    )


def counted(source: ReviewSource, decided: Decided) -> dict[str, int]:
    """Number of pictures that are decided on, changed, left out, skipped by all, and named differently."""
    counts = dict.fromkeys(("decided", "changed", "excluded", "skipped", "contested"), 0)
    for position, by in decided.items():
        settled = _without_skips(by)
        counts["skipped"] += bool(by) and not settled
        if settled:
            last = settled[-1]
            counts["decided"] += 1
            counts["changed"] += (last.action, last.label) != ("label", source.items[position].label)
            counts["excluded"] += last.action == "exclude"
            counts["contested"] += len({(each.action, each.label) for each in settled}) > 1
    return counts


def _without_skips(by: Mapping[str, LabelDecision]) -> list[LabelDecision]:
    return [each for each in by.values() if each.action != "skip"]


def _labels(source: ReviewSource, position: int, decided: Decided) -> Iterator[tuple[str, str]]:
    """Annotator and label of each line that a picture has in the manifest."""
    item, by = source.items[position], decided.get(position, {})
    if _excluded(by) is not None:
        return
    given = [each for each in by.values() if each.action == "label"]
    if given:
        yield from ((each.by, each.label) for each in given)
    elif source.kind == "set":
        yield from item.named or ([("", item.label)] if item.label else [])


def _excluded(by: Mapping[str, LabelDecision]) -> LabelDecision | None:
    """The latest decision that was no skip, if it leaves the picture out."""
    return next((each for each in _without_skips(by)[-1:] if each.action == "exclude"), None)
