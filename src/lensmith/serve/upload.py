"""The image of a request, read within its limit: a raw body, or the field `file` of a multipart form."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from lensmith.serve.problems import ProblemError

FIELD = "file"
ENVELOPE_BYTES = 65_536
"""What a multipart form may take around the file: boundaries, part headers, other small fields."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


async def read_image(request: Request, max_bytes: int) -> bytes:
    """The encoded image that a request carries.

    Args:
        request: its body has not been read.
        max_bytes: largest image; a multipart form may be ENVELOPE_BYTES larger.

    Raises:
        ProblemError: larger than allowed (before it is read, where the length was announced), none there, or neither
            JPEG nor PNG by its first bytes, whatever the content type says.
        ClientDisconnect: the client left while sending.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        encoded = await _read_form(request, max_bytes)
    else:
        encoded = b"".join([chunk async for chunk in _limited(request, max_bytes, max_bytes)])
    if not encoded:
        raise ProblemError("no-image", "A JPEG or PNG image was expected as the body. The body is empty.")
    if not encoded.startswith(_MAGIC):
        raise ProblemError(
            "not-jpeg-or-png",
            "A JPEG or PNG image was expected. The first bytes are of neither. Save the picture as JPEG or PNG.",
        )
    return encoded


async def _read_form(request: Request, max_bytes: int) -> bytes:
    body = _limited(request, max_bytes + ENVELOPE_BYTES, max_bytes)
    parser = MultiPartParser(request.headers, body, max_files=1, max_fields=16, max_part_size=ENVELOPE_BYTES)
    parser.spool_max_size = max_bytes + ENVELOPE_BYTES  # in memory: the limit holds, and a disk would only add time
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ProblemError(
            "no-image", f"A multipart form with one file in the field `{FIELD}` was expected. {error.message}"
        ) from error
    try:
        upload = form.get(FIELD)
        if not isinstance(upload, UploadFile):
            names = ", ".join(form) or "none"
            raise ProblemError(
                "no-image", f"A file in the form field `{FIELD}` was expected. The fields that hold something: {names}."
            )
        if (upload.size or 0) > max_bytes:
            raise _too_large(max_bytes)
        return await upload.read()
    finally:
        await form.close()


async def _limited(request: Request, limit: int, max_bytes: int) -> AsyncGenerator[bytes]:
    """The body's chunks, for as long as they stay within `limit` bytes together."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(max_bytes)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError("too-large", f"An image of at most {max_bytes:,} bytes was expected. This one is larger.")
