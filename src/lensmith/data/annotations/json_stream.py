"""JSON files of annotations, read element by element, so that a file of any size takes little memory."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from lensmith.errors import DataError

HEAD_BYTES = 1 << 20
"""Bytes that are read of a file to recognise its format."""
MAX_DEPTH = 100
"""Most lists and objects within each other; annotation tools write about ten."""

_BLOCK_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"


def json_items(file: Path, prefix: str = "item") -> Iterator[Any]:
    """Elements of a list in a JSON file, one at a time.

    Args:
        file: path of the file.
        prefix: place of the elements: `item` in a list that is the whole file, `annotations.item` in the list
            `annotations` of an object; the empty text yields the whole content as one element.

    Raises:
        DataError: the file cannot be read, is not JSON in UTF-8, or nests deeper than `MAX_DEPTH`.
    """
    import ijson

    with _opened(file) as stream:
        yield from ijson.items(stream, prefix, use_float=True)


def json_pairs(file: Path, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values of an object in a JSON file, one pair at a time.

    Args:
        file: path of the file.
        prefix: place of the object, as `labels`; the empty text for an object that is the whole file.

    Raises:
        DataError: the file cannot be read, is not JSON in UTF-8, or nests deeper than `MAX_DEPTH`.
    """
    import ijson

    with _opened(file) as stream:
        yield from ijson.kvitems(stream, prefix, use_float=True)


def json_head(file: Path, max_bytes: int = HEAD_BYTES) -> Any:
    """The content of a JSON file as far as its first bytes tell: lists and objects may be incomplete.

    Returns:
        A list, an object or another value; None where the file cannot be read or does not begin as JSON.
    """
    import ijson
    from ijson.common import ObjectBuilder

    built, depth, started = ObjectBuilder(), 0, False
    with suppress(OSError, ijson.JSONError, UnicodeDecodeError), file.open("rb") as stream:
        head = stream.read(max_bytes).removeprefix(_BOM)
        for event, value in ijson.basic_parse(head, use_float=True):
            depth += event.startswith("start_") - event.startswith("end_")
            if depth > MAX_DEPTH:
                return None
            built.event(event, value)
            started = True
    return built.value if started else None


def json_fault(file: Path, max_bytes: int = HEAD_BYTES) -> str:
    """Why a file is no JSON in UTF-8, as far as its first bytes tell; empty where they are as they should be."""
    import ijson

    depth, head = 0, b""
    try:
        with file.open("rb") as stream:
            head = stream.read(max_bytes).removeprefix(_BOM)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "it is in UTF-16"
        for event, _ in ijson.basic_parse(head, use_float=True):
            depth += event.startswith("start_") - event.startswith("end_")
            if depth > MAX_DEPTH:
                return f"its lists and objects are nested deeper than {MAX_DEPTH} levels"
    except OSError as error:
        return f"it cannot be opened ({error.strerror or error})"
    except (ijson.JSONError, UnicodeDecodeError) as error:
        is_cut = isinstance(error, ijson.IncompleteJSONError) and len(head) > max_bytes - len(_BOM) - 1
        return "" if is_cut and "premature" in _reason(error) else _reason(error)
    return ""


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """A JSON file to parse, from behind its byte-order mark; errors of the parser become one sentence."""
    import ijson

    try:
        with file.open("rb") as stream:
            _require_shallow(file, stream)
            stream.seek(len(_BOM) if stream.read(len(_BOM)) == _BOM else 0)
            yield stream
    except OSError as error:
        raise _unreadable(file, f"It cannot be opened ({error.strerror or error}).") from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise _unreadable(file, f"It is broken: {_reason(error)}.") from error


def _require_shallow(file: Path, stream: BinaryIO) -> None:
    """Refuse lists in lists without end, for which the parser would need memory by the square of their depth."""
    import ijson

    depth = deepest = 0
    while block := stream.read(_BLOCK_BYTES):
        opened, closed = (sum(map(block.count, brackets)) for brackets in ((b"[", b"{"), (b"]", b"}")))
        deepest = max(deepest, depth + opened)
        depth += opened - closed
    # Brackets in texts count here, too, so that only a suspicion is looked into.
    if deepest > _BLOCK_BYTES // 8:
        depth = 0
        stream.seek(0)
        stream.seek(len(_BOM) if stream.read(len(_BOM)) == _BOM else 0)
        for event, _ in ijson.basic_parse(stream, use_float=True):
            depth += event.startswith("start_") - event.startswith("end_")
            if depth > MAX_DEPTH:
                raise _unreadable(file, f"Its lists and objects are nested deeper than {MAX_DEPTH} levels.")
    stream.seek(0)


def _unreadable(file: Path, arrived: str) -> DataError:
    return DataError(
        f"Annotations as JSON in UTF-8 were expected in {file}.", arrived, "Export them again from the annotation tool."
    )


def _reason(error: Exception) -> str:
    """The parser's reason without its picture of the place, as `premature EOF`."""
    first = str(error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error.args[0])
    return re.sub(r"^(parse|lexical) error: ", "", first.strip().partition("\n")[0]).rstrip(". ") or "not JSON"
