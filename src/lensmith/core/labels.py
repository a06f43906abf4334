"""The one rule for class names, wherever they come in: folders, CSV files, settings, feedback, a bundle's labels.

A name is normalized where nobody can see the difference: Unicode form NFC, no invisible characters, plain spaces, none
at its ends. Names that still look alike (`Cat` and `cat`, Latin and Cyrillic `а`, full-width letters), and spellings of
one number as spreadsheets make them (`1`, `01`, `1.0`), are refused together, since nobody can tell whether they were
meant as one class or as two.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from lensmith.core.text import listed
from lensmith.errors import DataError

_JOINERS = "\u200c\u200d"
"""Zero-width joiners, which Persian, Indic scripts and emoji are spelled with; they stay between such characters."""
_SELECTORS = "\ufe0e\ufe0f"
"""Variation selectors: text or emoji form of the character before."""
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Characters that are drawn as nothing or as a blank, though Unicode counts them among letters and symbols."""
_HOMOGLYPHS = str.maketrans(
    "аеорсухіјѕһԁԛԝвкмнтαορυνικτı\u2010\u2011\u2012\u2013\u2014\u2212\u2019\u2018\u0060\u00b4",
    "aeopcyxijshdqwbkmhtaopuvikti------\u0027\u0027\u0027\u0027",
)
"""Small Cyrillic and Greek letters, dashes and quotes that look like ASCII → the ASCII character."""

_MISSING = frozenset({"nan", "NaN", "NAN", "-nan", "None", "NULL", "null", "<NA>", "#N/A", "#NA", "NaT", "undefined"})


@lru_cache(maxsize=4096)  # tables name a few classes very often
def canonical_label(name: str) -> str:
    """The class name that `name` stands for; empty if nothing of it can be seen.

    Args:
        name: a name as it was typed: of a folder, in a CSV, in a setting.

    Returns:
        The name in Unicode form NFC, without invisible characters (zero-width, byte-order and direction marks, soft
        hyphens), with one plain space for each run of blanks and line breaks, and none at its ends.
    """
    composed = unicodedata.normalize("NFC", name)
    visible = "".join(
        " " if character.isspace() or unicodedata.category(character) == "Zs" or character in "\u2800\u3164\uffa0"
        else "" if _is_invisible(composed, position) else character
        for position, character in enumerate(composed)
    )  # fmt: skip
    return unicodedata.normalize("NFC", re.sub(" +", " ", visible).strip(" "))


def _is_invisible(text: str, position: int) -> bool:
    character = text[position]
    if character in _JOINERS:
        around = text[position - 1 : position] + text[position + 1 : position + 2]
        return position == 0 or len(around) < 2 or any(each.isascii() for each in around)
    if character in _SELECTORS:
        return position == 0 or text[position - 1].isalpha()
    return character in _FILLERS or unicodedata.category(character) in ("Cf", "Cc") or "\ufe00" <= character <= "\ufe0d"


def code_points(name: str) -> str:
    """The characters of a name as numbers, those outside ASCII with their names: `U+0061 U+200B ZERO WIDTH SPACE`."""

    def shown(character: str) -> str:
        described = "" if " " < character < "\x7f" else f" {unicodedata.name(character, 'a control character')}"
        return f"U+{ord(character):04X}{described}"

    return " ".join(map(shown, name))


def distinguished(names: Iterable[str]) -> str:
    """Names that look alike, each with the code points of the characters that not all of them have."""
    found = sorted(names)
    common = set.intersection(*map(set, found)) if found else set()
    described = []
    for name in found:
        own = "".join(dict.fromkeys(each for each in name if each not in common or not " " <= each <= "~"))
        ends = f"{' ' if name[:1] == ' ' else ''}{' ' if name[-1:] == ' ' else ''}"
        described.append(f"{name!r} ({code_points(own or ends[:1] or name)})")
    return " and ".join(described)


def require_distinct(labels: Iterable[str], where: object) -> None:
    """Refuse canonical labels of which several look alike: they differ in case, width or by letters of another script.

    Labels of one character are let pass if they differ in case, since sets of letters have them.

    Args:
        labels: canonical labels.
        where: folder, file or setting that they come from, for the message.

    Raises:
        DataError: all labels that look alike, with code points.
    """
    groups = defaultdict(list)
    for label in set(labels):
        groups[_skeleton(label)].append(label)
    twins = sorted(sorted(group) for group in groups.values() if len(group) > 1)
    if twins:
        raise DataError(
            f"Class names that can be told apart were expected in {where}.",
            f"These look alike: {listed(map(distinguished, twins), 3, '; ')}.",
            "Give each class one name everywhere; rename or merge the others.",
        )


def lookalike(name: str, labels: Iterable[str]) -> str | None:
    """The one of `labels` that looks like `name`, though it stands for another class; None if none does."""
    skeleton = _skeleton(canonical_label(name))
    return next((label for label in labels if _skeleton(canonical_label(label)) == skeleton), None)


def _skeleton(label: str) -> str:
    """A key that labels share which look alike."""
    wide = unicodedata.normalize("NFKC", label)
    folded = unicodedata.normalize("NFKC", wide.lower()) if len(label) > 1 else wide
    seen = "".join(each for each in folded.translate(_HOMOGLYPHS) if each not in _JOINERS + _SELECTORS)
    number = re.fullmatch(r"0*([0-9]+)(?:[.,]0+)?", seen)
    return number[1] if number else seen


def is_missing_value(label: str) -> bool:
    """Whether a label is what programs write where a value is missing, as `nan` of a pandas table."""
    return label in _MISSING


def matched_label(name: str, labels: Iterable[str]) -> str | None:
    """The one of `labels` that `name` stands for; None if it is none of them."""
    known = list(labels)
    if name in known:
        return name
    wanted = canonical_label(name)
    return next((label for label in known if canonical_label(label) == wanted), None) if wanted else None
