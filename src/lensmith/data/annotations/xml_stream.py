"""XML files of annotations, read element by element; a document type or entities are refused."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lensmith.errors import DataError

MAX_DEPTH = 100
"""Most elements within each other; annotation tools write about six."""

_BLOCK_BYTES = 1 << 16


def xml_elements(file: Path) -> Iterator[ET.Element]:
    """Children of a file's root element, each when it is complete; they take no memory afterwards.

    Raises:
        DataError: the file cannot be read, is not XML, has a document type (and so perhaps entities), or nests deeper
            than `MAX_DEPTH`.
    """
    builder = _Builder()
    parser = ET.XMLParser(target=builder)
    try:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                parser.feed(block)
                yield from builder.take()
            parser.close()
            yield from builder.take()
    except _RefusedError as error:
        raise _unreadable(file, str(error), "Remove it, or export the annotations again.") from None
    except OSError as error:
        raise _unreadable(file, f"It cannot be opened ({error.strerror or error}).") from error
    except (ET.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise _unreadable(file, f"It is broken: {error}.") from error


def xml_root(beginning: str) -> str:
    """Name of the root element from the beginning of an XML file; empty where there is none."""
    text = re.sub(r"<\?.*?\?>|<!--.*?-->", "", beginning, flags=re.DOTALL)
    text = re.sub(r"<!DOCTYPE[^\[>]*(\[.*?\]\s*)?>", "", text, flags=re.DOTALL)
    found = re.match(r"\s*<([A-Za-z_][\w.-]*)[\s/>]", text)
    return found[1] if found else ""


class _RefusedError(Exception):
    """Content that no annotation tool writes."""


class _Builder(ET.TreeBuilder):
    """Builds the children of the root one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._depth, self._root = 0, ET.Element("")
        self._complete: list[ET.Element] = []

    def start(self, tag: Any, attrs: Any, /) -> ET.Element:
        element = super().start(tag, attrs)
        self._depth += 1
        if self._depth == 1:
            self._root = element
        if self._depth > MAX_DEPTH:
            raise _RefusedError(f"Its elements are nested deeper than {MAX_DEPTH} levels.")
        return element

    def end(self, tag: Any, /) -> ET.Element:
        element = super().end(tag)
        self._depth -= 1
        if self._depth == 1:
            self._complete.append(element)
            del self._root[:]
        return element

    def doctype(self, *_: object) -> None:
        raise _RefusedError("It has a document type (DOCTYPE), which may define entities.")

    def take(self) -> list[ET.Element]:
        done, self._complete = self._complete, []
        return done


def _unreadable(file: Path, arrived: str, remedy: str = "Export them again from the annotation tool.") -> DataError:
    return DataError(f"Annotations as plain XML were expected in {file}.", arrived, remedy)
