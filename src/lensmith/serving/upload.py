"""The images of a request, read within their limits: a raw body, or the field `file` of a multipart form."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from lensmith.config import ServeSettings
from lensmith.serving.execution.admission import STEP_BYTES, UploadShare
from lensmith.serving.multipart import FormError, files_of
from lensmith.serving.problems import ProblemError

FIELD = "file"
ENVELOPE_BYTES = 65_536
"""What a multipart form may take around each file: boundaries, part headers, other small fields."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


class Uploads:
    """Reads bodies.

    Args:
        settings: limits on bytes, images and time.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.max_bytes = settings.max_bytes
        self.max_images = settings.max_images
        self._timeout_s = settings.upload_timeout_s

    async def image(self, request: Request, share: UploadShare) -> bytes:
        """The one encoded image that a request carries; `share` holds its memory.

        Raises:
            ProblemError: larger than allowed (before it is read, where the length was announced), none there, neither
                JPEG nor PNG by its first bytes whatever the content type says, too slow, or no memory left for it.
            ClientDisconnect: the client left while sending.
        """
        if is_form(request):
            (encoded,) = await self._form(request, share, 1)
        else:
            encoded = await self.body(request, share, self.max_bytes)
        require_image(encoded)
        return encoded

    async def images(self, request: Request, share: UploadShare) -> list[bytes]:
        """The encoded images of a form, one or more in the field `file`; what they are is not looked at.

        Raises:
            ProblemError: as `image`; or no form, or more images than allowed.
            ClientDisconnect: the client left while sending.
        """
        if not is_form(request):
            raise ProblemError(
                "no-image", f"A multipart form with images in the field `{FIELD}`, once for each, was expected."
            )
        return await self._form(request, share, self.max_images)

    async def body(self, request: Request, share: UploadShare, limit: int, what: str = "An image") -> bytes:
        """A body of at most `limit` bytes, as it is. `what` it is, is said where it is larger.

        Raises:
            ProblemError: larger, too slow, or no memory left for it.
            ClientDisconnect: the client left while sending.
        """
        return await self._read(request, share, limit, limit, what)

    async def _form(self, request: Request, share: UploadShare, max_files: int) -> list[bytes]:
        limit = max_files * (self.max_bytes + ENVELOPE_BYTES)
        body = await self._read(request, share, limit, self.max_bytes)
        try:
            files = await files_of(body, request.headers["content-type"], FIELD, max_files)
        except FormError as error:
            raise ProblemError(
                "no-image",
                f"A multipart form with at most {max_files} image{'s' * (max_files > 1)} in the field `{FIELD}` was "
                f"expected. {error}",
            ) from error
        if any(len(file) > self.max_bytes for file in files):
            raise _too_large(self.max_bytes)
        return files

    async def _read(self, request: Request, share: UploadShare, limit: int, said: int, what: str = "An image") -> bytes:
        """A whole body of at most `limit` bytes, in time; the limit that is `said` may be another."""
        given = request.headers.get("content-length", "")
        announced = int(given[:18]) if given.isascii() and given.isdigit() else limit
        if given and announced > limit:
            raise _too_large(said, what)
        chunks: list[bytes] = []
        received, more = 0, True
        share.reserve(min(announced, STEP_BYTES))
        try:
            async with asyncio.timeout(self._timeout_s):
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    more = message.get("more_body", False)
                    chunk = message.get("body", b"")
                    received += len(chunk)
                    if received > limit:
                        raise _too_large(said, what)
                    # Memory for what comes next is taken before it is read. Announced lengths alone would let a few
                    # slow senders of large bodies hold all of it.
                    share.reserve(min(announced, received + STEP_BYTES))
                    chunks.append(chunk)
        except TimeoutError:
            raise ProblemError(
                "too-slow",
                f"A whole upload was expected within {self._timeout_s:g} s.",
                {"connection": "close"},  # what is left of it is not waited for
            ) from None
        return b"".join(chunks)


def require_image(encoded: bytes) -> None:
    """Refuse what is no image by its first bytes.

    Raises:
        ProblemError: empty, or neither JPEG nor PNG.
    """
    if not encoded:
        raise ProblemError("no-image", "A JPEG or PNG image was expected as the body. The body is empty.")
    if not encoded.startswith(_MAGIC):
        raise ProblemError(
            "not-jpeg-or-png",
            "A JPEG or PNG image was expected. The first bytes are of neither. Save the picture as JPEG or PNG.",
        )


def is_form(request: Request) -> bool:
    """Whether the body is a multipart form, by what the request says."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _too_large(max_bytes: int, what: str = "An image") -> ProblemError:
    return ProblemError("too-large", f"{what} of at most {max_bytes:,} bytes was expected. This one is larger.")
