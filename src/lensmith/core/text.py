"""Text for messages, such as lists with "and 3 more"; blanks and quotation marks around it; variables as text."""

import os
import re
import unicodedata
from collections.abc import Iterable

from lensmith.errors import SettingsError


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


def stripped(text: str) -> str:
    """A text without the blanks at its ends, invisible characters included."""
    while text and is_blank(text[0]):
        text = text[1:]
    while text and is_blank(text[-1]):
        text = text[:-1]
    return text


def is_quoted(text: str) -> bool:
    """Whether quotation marks stand around a text, as env files of Docker and unit files may leave them there."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


def text_of_variable(name: str, expected: str) -> str | None:
    """Text of an environment variable, without blanks around it; None where the variable is not set.

    Args:
        name: name of the variable.
        expected: noun phrase for what it holds, as `A folder`.

    Raises:
        SettingsError: the variable is empty, or its value is in quotation marks.
    """
    value = os.environ.get(name)
    if value is None:
        return None
    text = stripped(value)
    if not text or is_quoted(text):
        raise SettingsError(
            f"{expected} was expected in {name}.",
            "It is in quotation marks, which are part of its value here." if text else "It is empty.",
            "Leave them out." if text else "Unset it, or give it a value.",
        )
    return text
