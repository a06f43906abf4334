"""Text for messages: lists with "and 3 more", the first line or sentence of an error; and whether a text is blank."""

import re
import unicodedata
from collections.abc import Iterable


def listed(items: Iterable[object], most: int = 5, separator: str = ", ") -> str:
    """Join items for a sentence, at most `most` of them: `a, b and 3 more`; an empty text without items."""
    names = [str(item) for item in items]
    rest = len(names) - most
    return separator.join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its full stop; the name of its class if it has no message."""
    return str(error).strip().partition("\n")[0].rstrip(". ") or type(error).__name__


def first_sentence(text: str) -> str:
    """The first sentence of another library's message, without the advice after it, which seldom fits here."""
    return re.split(r"\n|\. ", text.strip(), maxsplit=1)[0].rstrip(".")


def is_blank(text: str) -> bool:
    """Whether a text has no visible character: nothing but spaces, zero-width characters and byte-order marks."""
    return all(each.isspace() or unicodedata.category(each) == "Cf" for each in text)
