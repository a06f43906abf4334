"""A review under way: the source, its journal, and what follows from both: who gave which picture which label.

Each reviewer has a decision of their own on a picture; the last one that was not undone counts. A source's own label
stands until somebody decides.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lensmith.core.labels import canonical_label, lookalike, matched_label
from lensmith.core.text import listed
from lensmith.curation.reviewing.items import ReviewSource, content_stamp
from lensmith.curation.reviewing.journal import Action, Journal, LabelDecision
from lensmith.curation.reviewing.outcome import counted
from lensmith.errors import DataError
from lensmith.imaging.crops import picture_of

LONGEST_NAME = 100
"""Characters of a class's or reviewer's name."""


class RefusedError(Exception):
    """A decision that cannot be taken.

    Args:
        kind: short name of the reason, for programs.
        message: sentences for people.
        similar: classes that may be meant.
    """

    def __init__(self, kind: str, message: str, similar: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.similar = tuple(similar)


@dataclass(frozen=True)
class Standing:
    """What counts for the pictures of a source.

    Attributes:
        decided: position of an item → reviewer → the decision that counts.
        changed: number of decided pictures whose file has changed since.
        gone: number of decided pictures that the source does not have any more.
    """

    decided: dict[int, dict[str, LabelDecision]]
    changed: int = 0
    gone: int = 0


def standing(source: ReviewSource, decisions: Iterable[LabelDecision], verify: bool = True) -> Standing:
    """What decisions mean for a source.

    Args:
        source: pictures that are reviewed.
        decisions: all decisions of the journal, oldest first.
        verify: whether decisions on files that have changed since are left out.
    """
    all_decisions = list(decisions)
    undone = {each.undoes for each in all_decisions if each.action == "undo"}
    found: dict[int, dict[str, LabelDecision]] = defaultdict(dict)
    gone, changed = set(), set()
    for each in all_decisions:
        if each.action == "undo" or each.id in undone:
            continue
        position = source.index.get(each.path)
        if position is None:
            gone.add(each.path)
        else:
            found[position].pop(each.by, None)  # so that the latest comes last
            found[position][each.by] = each
    if verify:
        for position, by in found.items():
            stamp = content_stamp(picture_of(source.file(source.items[position].path)))
            for reviewer, decision in list(by.items()):
                if decision.content != stamp:
                    changed.add(decision.path)
                    del by[reviewer]
    return Standing({position: by for position, by in found.items() if by}, len(changed), len(gone))


def require_same_data(source: ReviewSource, found: Standing, journal: Path) -> None:
    """Refuse a journal most of whose decisions are about other pictures.

    Raises:
        DataError: fewer decisions fit the source than do not.
    """
    astray = found.changed + found.gone
    if astray > len(found.decided):
        raise DataError(
            f"A journal about the pictures of {source.path} was expected at {journal}.",
            f"Of the pictures that were decided on, {found.gone:,} are not in {source.path}, {found.changed:,} are "
            f"other pictures under the same name, and {len(found.decided):,} fit.",
            "Give the source that was reviewed, or begin a new review with --out OTHER.csv.",
        )


def astray_notes(found: Standing) -> tuple[str, ...]:
    """Sentences on decisions that do not fit the source; they stay in the journal."""
    notes = []
    if found.gone:
        notes.append(f"Decided pictures that the source does not have any more: {found.gone:,}.")
    if found.changed:
        notes.append(f"Decided pictures whose file has changed since, and that wait again: {found.changed:,}.")
    return tuple(notes)


class Session:
    """Takes decisions: checks them, appends them to the journal, and remembers what counts.

    Attributes:
        source: pictures that are reviewed.
        journal: journal that decisions are appended to.
        labels: classes to choose from, in order; new ones come last.
        decided: position of an item → reviewer → the decision that counts.
        log: position of the item of each decision of this session's journal, in order; -1: not in the source.
    """

    def __init__(self, source: ReviewSource, journal: Journal, found: Standing, closed: bool = False) -> None:
        self.source = source
        self.journal = journal
        self.decided = defaultdict(dict, {position: dict(by) for position, by in found.decided.items()})
        self.labels = list(source.labels)
        self.is_closed = closed
        self._lock = threading.Lock()
        self._stamps: dict[int, str] = {}
        for each in journal.decisions:
            if each.action == "label" and matched_label(each.label, self.labels) is None:
                self.labels.append(each.label)
        self.log = [source.index.get(each.path, -1) for each in journal.decisions]

    def decide(
        self,
        name: str,
        by: str,
        position: int,
        action: Action,
        *,
        label: str = "",
        undoes: str = "",
        new_class: bool = False,
    ) -> LabelDecision:
        """Take a decision; a repeated `name` returns the first one unchanged.

        Args:
            name: unique id of the decision.
            by: name of the reviewer.
            position: position of the item in the source.
            action: kind of the decision.
            label: name of the class, for `label`.
            undoes: id of the decision to take back, for `undo`.
            new_class: whether a class that is not known may be added.

        Raises:
            RefusedError: an unknown picture, class or decision, or a name that looks like another one.
            OSError: the journal cannot be written to.
        """
        if (known := self.journal.find(name)) is not None:
            return known
        if not 0 <= position < len(self.source.items):
            raise RefusedError("no-such-picture", f"There is no picture {position}.")
        reviewer = canonical_label(by)
        if not reviewer or len(reviewer) > LONGEST_NAME:
            raise RefusedError("no-name", f"A reviewer's name of 1 to {LONGEST_NAME} characters is needed.")
        item = self.source.items[position]
        stamp = content_stamp(picture_of(self.source.file(item.path)))
        with self._lock:
            given = self._label(label, new_class) if action == "label" else ""
            taken_back = self._undone(undoes, reviewer, item.path) if action == "undo" else None
            decision = self.journal.append(
                LabelDecision(
                    name, reviewer, item.path, action, given, self.label_of(position, reviewer), stamp,
                    taken_back.id if taken_back else "",
                )
            )  # fmt: skip
            if len(self.log) < len(self.journal.decisions):
                self.log.append(position)
                self._apply(position, decision)
            return decision

    def _apply(self, position: int, decision: LabelDecision) -> None:
        by = self.decided[position]
        if decision.action == "undo":
            undone = {each.undoes for each in self.journal.decisions if each.action == "undo"}
            mine = [
                each for each in self.journal.decisions
                if each.path == decision.path and each.by == decision.by and each.action != "undo"
                and each.id not in undone and each.content == decision.content
            ]  # fmt: skip
            by.pop(decision.by, None)
            if mine:
                by[decision.by] = mine[-1]
        else:
            by.pop(decision.by, None)
            by[decision.by] = decision
            if decision.action == "label" and decision.label not in self.labels:
                self.labels.append(decision.label)

    def label_of(self, position: int, reviewer: str | None = None) -> str:
        """Label of a picture: the reviewer's own, else the latest of anybody, else the source's; empty for none."""
        by = self.decided.get(position, {})
        latest = by.get(reviewer) if reviewer in by else next(reversed(by.values()), None)
        if latest is None or latest.action == "skip":
            return self.source.items[position].label
        return latest.label

    def _label(self, name: str, new_class: bool) -> str:
        label = canonical_label(name)
        if not label or len(label) > LONGEST_NAME:
            raise RefusedError("no-label", f"A class name of 1 to {LONGEST_NAME} visible characters is needed.")
        if (known := matched_label(label, self.labels)) is not None:
            return known
        if (twin := lookalike(label, self.labels)) is not None:
            raise RefusedError("looks-alike", f"{label!r} looks like the class {twin!r}.", [twin])
        if self.is_closed:
            raise RefusedError("closed", f"{label!r} is none of the classes that --classes lists.")
        if not new_class:
            raise RefusedError("new-class", f"There is no class {label!r} yet.")
        return label

    def _undone(self, name: str, reviewer: str, path: str) -> LabelDecision:
        found = self.journal.find(name)
        if found is None or found.path != path or found.by != reviewer or found.action == "undo":
            raise RefusedError("nothing-to-undo", "That is no decision of this reviewer on this picture.")
        return found

    def summary(self) -> str:
        """Sentence with the state of the review."""
        counts = counted(self.source, {position: dict(by) for position, by in list(self.decided.items())})
        parts = [f"{counts['decided']:,} of {len(self.source.items):,} pictures decided"]
        parts += [
            f"{counts[name]:,} {name}" for name in ("changed", "excluded", "skipped", "contested") if counts[name]
        ]
        return listed(parts, len(parts))
