"""Multipart forms: the files of a form whose body has arrived as a whole, by the parser of python-multipart.

Starlette's own form parser stores each part in a spooled file behind coroutines, which took as long as the rest of a
request beside its image; and the charset of a part may name a codec that fails in ways of its own.
"""

import asyncio

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

MAX_FIELDS = 16
"""Largest number of parts that are no files."""
CHUNK_BYTES = 1_000_000
"""Bytes that are parsed before the event loop serves other requests."""


class FormError(Exception):
    """A body that is not the form that was expected; the message is for the client."""


class _Parts:
    """Callbacks of the parser, which collect the files of a form and the names of its other fields."""

    def __init__(self, name: str, max_files: int) -> None:
        self._wanted = name
        self.files: list[tuple[str, bytes]] = []
        self.fields: list[str] = []
        self._max_files = max_files
        self.on_part_begin()

    def on_part_begin(self) -> None:
        self._header = self._disposition = b""
        self._name, self._is_file = "", False
        self._data: list[bytes] = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition += data[start:end]

    def on_header_end(self) -> None:
        self._header = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise FormError('Each part needs a header Content-Disposition with a "name".')
        # UTF-8, as browsers send it, whatever the sender says.
        self._name = options[b"name"].decode("utf-8", "replace")
        # Some clients name no file, or only in the extended notation (filename*=UTF-8''...).
        self._is_file = b"filename" in options or b"filename*" in options or self._name == self._wanted
        if self._is_file and len(self.files) == self._max_files:
            raise FormError(f"Too many files. Maximum number of files is {self._max_files}.")
        if not self._is_file and len(self.fields) == MAX_FIELDS:
            raise FormError(f"Too many fields. Maximum number of fields is {MAX_FIELDS}.")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:  # the content of other fields is of no interest
            self._data.append(data[start:end])

    def on_part_end(self) -> None:
        if self._is_file:
            self.files.append((self._name, b"".join(self._data)))
        else:
            self.fields.append(self._name)


async def read_files(body: bytes, content_type: str, name: str, max_files: int) -> list[bytes]:
    """Read the files of a form in the field `name`, in their order, at least one.

    Args:
        body: the request's body.
        content_type: the request's Content-Type header, which holds the boundary.
        name: the field's name.
        max_files: largest number of files in all fields together.

    Raises:
        FormError: no form, too many parts, or no such file.
    """
    _, options = parse_options_header(content_type)
    if b"boundary" not in options:
        raise FormError("Missing boundary in multipart.")
    parts = _Parts(name, max_files)
    callbacks = {each: getattr(parts, each) for each in dir(parts) if each.startswith("on_")}
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        for start in range(0, len(body), CHUNK_BYTES):
            if start:
                await asyncio.sleep(0)
            parser.write(body[start : start + CHUNK_BYTES])
        parser.finalize()
    except FormParserError as error:
        raise FormError("Invalid multipart data.") from error
    found = [data for field_name, data in parts.files if field_name == name]
    if not found:
        names = ", ".join([*(each for each, _ in parts.files), *parts.fields]) or "none"
        raise FormError(f"A file in the field `{name}` is missing. The fields that hold something: {names}.")
    return found
