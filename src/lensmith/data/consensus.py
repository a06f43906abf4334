"""Consensus: several labels of one picture become one label, or the picture is contested and left out.

By majority, the class with most votes wins and a tie is contested. By Dawid and Skene, the likeliest class wins if it
is at least three times as likely as all others together. An annotator has one vote for a picture: the same label twice
counts once, and two different labels of one annotator count as none. Labels without an annotator are those of one
unnamed annotator.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lensmith.config.values import ConsensusMethod
from lensmith.core.labels import canonical_label
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.data.annotation import Annotation
from lensmith.data.dawid_skene import dawid_skene
from lensmith.data.part_names import Part
from lensmith.data.ratings import Ints, Ratings

SURE = 0.75
"""Probability from which on the consensus of Dawid and Skene takes a class: three times as likely as all others."""
ADVICE = " `lensmith data agreement` lists them, to be decided."
NAMED_TWICE = "named more than once"
"""First words of the reason where no vote is left, or parts or groups contradict each other."""
UNNAMED = "(unnamed)"
"""Name of the annotator of labels without one."""


@dataclass(frozen=True)
class Contested(Result):
    """A picture without a consensus.

    Attributes:
        path: path of the picture, relative to the set's root.
        votes: class and number of annotators who gave it, most votes first; may be empty.
        reason: why there is no consensus, in words.
        part: train, val or test, where that is not contested.
        group: group of the picture, where that is not contested.
    """

    hidden: ClassVar[tuple[str, ...]] = ("part", "group")

    path: str
    votes: Mapping[str, int]
    reason: str
    part: Part | None = None
    group: str = ""

    @property
    def is_divided(self) -> bool:
        """Whether annotators differ, rather than lines contradict each other."""
        return not self.reason.startswith(NAMED_TWICE)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Contested":
        """The picture of `as_dict`."""
        return cls(plain["path"], plain["votes"], plain["reason"])


@dataclass(frozen=True)
class Votes:
    """Votes of annotators: one at most of each for a picture.

    Attributes:
        ratings: the votes, by path, annotator and class; pictures without a vote are not in it.
        undecided: path → annotator → classes, of annotators who gave a picture several classes, and so no vote.
        repeated: number of labels that an annotator gave a picture once more.
        spellings: annotator → other spellings of the name, which differ in case.
    """

    ratings: Ratings
    undecided: Mapping[str, Mapping[str, tuple[str, ...]]]
    repeated: int
    spellings: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Consensus:
    """One annotation for each picture.

    Attributes:
        annotations: the pictures with a consensus, sorted by path, each with its class; nobody is named as annotator.
        contested: the other pictures, sorted by path.
        notes: sentences about how annotators were put together.
        warnings: sentences about what is left out.
    """

    annotations: tuple[Annotation, ...]
    contested: tuple[Contested, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def contested_text(contested: Sequence[Contested]) -> str:
    """A clause with the number and the first names of contested images, for a summary; empty without any."""
    named = listed((each.path for each in contested), 3)
    return f"; contested and left out: {len(contested):,} ({named})" if contested else ""


def contested_warnings(contested: Sequence[Contested]) -> list[str]:
    """A sentence on images that are left out, if there are any."""
    if not contested:
        return []
    named = f"{len(contested):,} ({listed((each.path for each in contested), 3)})"
    if not any(each.is_divided for each in contested):
        return [f"Images that are left out, since lines contradict each other about their label or part: {named}."]
    return [f"Images that are left out, since their annotators do not agree: {named}.{ADVICE}"]


def votes_of(annotations: Iterable[Annotation]) -> Votes:
    """The votes of annotations with labels that can be seen."""
    annotations = list(annotations)
    typed = Counter(canonical_label(each.annotator) or UNNAMED for each in annotations)
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in sorted(typed, key=lambda name: (-typed[name], name)):
        spellings[name.casefold()].append(name)
    given: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in annotations:
        key = (canonical_label(each.annotator) or UNNAMED).casefold()
        given[each.path, key].append(canonical_label(each.label))
    undecided: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    votes, repeated = [], 0
    for (path, key), labels in given.items():
        if len(different := sorted(set(labels))) > 1:
            undecided[path][spellings[key][0]] = tuple(different)
        else:
            votes.append((path, spellings[key][0], labels[0]))
            repeated += len(labels) - 1
    others = {names[0]: tuple(names[1:]) for names in spellings.values() if len(names) > 1}
    return Votes(Ratings.of(votes), undecided, repeated, others)


def majority(ratings: Ratings) -> Ints:
    """int64 (N,): class with most votes of each picture; -1 where two or more have as many."""
    labels, counts = _leaders(ratings)
    return np.where(counts[:, 0] > counts[:, 1], labels[:, 0], -1)


def majority_of_others(ratings: Ratings) -> Ints:
    """int64 (M,): class with most votes of the picture without the vote itself; -1 without others, or in a tie."""
    labels, counts = (leaders[ratings.picture] for leaders in _leaders(ratings))
    reduced = counts - (labels == ratings.label[:, None])
    # Without one vote a leader may fall behind the fourth class, but the other two leaders are not behind it.
    order = np.argsort(-reduced, axis=1, kind="stable")
    best = np.take_along_axis(reduced, order[:, :2], axis=1)
    winner = np.take_along_axis(labels, order[:, :1], axis=1)[:, 0]
    return np.where(best[:, 0] > best[:, 1], winner, -1)


def _leaders(ratings: Ratings) -> tuple[Ints, Ints]:
    """Classes and numbers of votes, int64 (N, 3) both, of the three classes with most votes; -1 and 0 for none."""
    picture, label, count = ratings.votes
    starts = np.searchsorted(picture, np.arange(len(ratings.pictures)))
    rank = np.arange(len(picture)) - starts[picture]
    labels = np.full((len(ratings.pictures), 3), -1, np.int64)
    counts = np.zeros((len(ratings.pictures), 3), np.int64)
    leads = rank < 3
    labels[picture[leads], rank[leads]] = label[leads]
    counts[picture[leads], rank[leads]] = count[leads]
    return labels, counts


def decide(ratings: Ratings, method: ConsensusMethod) -> Ints:
    """int64 (N,): class of each picture by consensus; -1 where it is contested.

    Raises:
        SettingsError: there are too many annotators and classes for the consensus of Dawid and Skene.
    """
    if method == "majority" or not len(ratings.label):
        return majority(ratings)
    probabilities = dawid_skene(ratings).probabilities
    return np.where(probabilities.max(axis=1) >= SURE, probabilities.argmax(axis=1), -1)


def resolve(annotations: Sequence[Annotation], method: ConsensusMethod = "majority") -> Consensus:
    """One annotation for each picture, by the consensus of those who labelled it.

    A picture that annotations put into two parts or two groups is also contested.

    Args:
        annotations: labels of pictures, in any order.
        method: how the class is found where annotators differ.

    Raises:
        SettingsError: there are too many annotators and classes for the consensus of Dawid and Skene.
    """
    of_path: dict[str, list[Annotation]] = defaultdict(list)
    for each in annotations:
        of_path[each.path].append(each)
    if len(of_path) == len(annotations):  # nothing to resolve, as in most sets
        return Consensus(tuple(sorted(each._replace(annotator="") for each in annotations)), ())
    votes = votes_of(annotations)
    winners = dict(zip(votes.ratings.pictures, decide(votes.ratings, method).tolist(), strict=True))
    counts = vote_counts(votes.ratings)
    found, contested = [], []
    for path, given in sorted(of_path.items()):
        number = winners.get(path, -1)
        parts, groups = ({each.part for each in given} - {None}, {each.group for each in given} - {""})
        part = parts.pop() if len(parts) == 1 else None
        group = groups.pop() if len(groups) == 1 else ""
        if number < 0 or len(parts) > 1 or len(groups) > 1:
            reason = _contradiction(given) or _reason(path, votes, counts)
            contested.append(Contested(path, counts.get(path, {}), reason, part, group))
        else:
            label = votes.ratings.classes[number]
            typed = next((each for each in given if canonical_label(each.label) == label), given[0])
            found.append(typed._replace(part=part, group=group, annotator=""))
    return Consensus(tuple(found), tuple(contested), tuple(_notes(votes, method)), tuple(_warnings(votes, contested)))


def vote_counts(ratings: Ratings) -> dict[str, dict[str, int]]:
    """Path → class and number of votes, most votes first."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for picture, label, count in zip(*(column.tolist() for column in ratings.votes), strict=True):
        found[ratings.pictures[picture]][ratings.classes[label]] = count
    return found


def _contradiction(given: Sequence[Annotation]) -> str | None:
    """What annotations of one picture say of its part or group, if they contradict each other."""
    for what, named in (("part", {each.part for each in given}), ("group", {each.group for each in given})):
        if len(several := sorted(filter(None, named))) > 1:
            return f"{NAMED_TWICE}, in {what} {' and in '.join(several)}"
    return None


def _reason(path: str, votes: Votes, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Why a picture has no consensus."""
    if path not in counts:
        named = sorted({label for labels in votes.undecided[path].values() for label in labels})
        return f"{NAMED_TWICE}, as {' and as '.join(named)}"
    return "contested: " + ", ".join(f"{label} by {count:,}" for label, count in counts[path].items())


def _notes(votes: Votes, method: ConsensusMethod) -> Iterator[str]:
    ratings = votes.ratings
    if len(ratings.annotators) > 1:
        several = int(np.count_nonzero(np.bincount(ratings.votes[0]) > 1))
        how = "the majority decides" if method == "majority" else "the consensus of Dawid and Skene decides"
        yield (
            f"Labels of {len(ratings.annotators):,} annotators, {len(ratings.label):,} for {len(ratings.pictures):,} "
            f"images; they differ on {several:,}, where {how}."
        )
    if votes.spellings:
        named = (" and ".join(map(repr, (name, *others))) for name, others in sorted(votes.spellings.items()))
        yield f"Spellings of one annotator's name: {listed(named, 3, '; ')}."


def _warnings(votes: Votes, contested: Sequence[Contested]) -> Iterator[str]:
    yield from contested_warnings(contested)
    doubled = [path for path, of in votes.undecided.items() if set(of) - {UNNAMED}]
    if doubled:
        yield (
            "Images to which one annotator gave several labels, none of which counts: "
            f"{len(doubled):,} ({listed(sorted(doubled), 3)})."
        )
