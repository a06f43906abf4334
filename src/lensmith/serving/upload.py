"""Uploads: the images of a request, read within their limits from a raw body or a multipart form."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from lensmith.config import ServeSettings
from lensmith.serving.execution.admission import STEP_BYTES, UploadShare
from lensmith.serving.multipart import FormError, read_files
from lensmith.serving.problems import ProblemError

FIELD = "file"
ENVELOPE_BYTES = 65_536
"""Bytes that a multipart form may add to each file: boundaries, part headers, other small fields."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


class UploadReader:
    """Reads request bodies within the limits of the settings on bytes, images and time."""

    def __init__(self, settings: ServeSettings) -> None:
        self.max_bytes = settings.max_bytes
        self.max_images = settings.max_images
        self._timeout_s = settings.upload_timeout_s

    async def image(self, request: Request, share: UploadShare) -> bytes:
        """Read the one encoded image that a request carries.

        Args:
            request: the request, whose body is a JPEG or PNG, or a form with one in the field `file`.
            share: memory for it, reserved of the upload budget.

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
        """Read the encoded images of a form, one or more in the field `file`, without looking at their content.

        Raises:
            ProblemError: as `image`; or no form, or more images than allowed.
            ClientDisconnect: the client left while sending.
        """
        if not is_form(request):
            raise ProblemError(
                "no-image", f"A multipart form with images in the field `{FIELD}`, once for each, was expected."
            )
        return await self._form(request, share, self.max_images)

    async def _form(self, request: Request, share: UploadShare, max_files: int) -> list[bytes]:
        limit = max_files * (self.max_bytes + ENVELOPE_BYTES)
        body = await self.body(request, share, limit, named_limit=self.max_bytes)
        try:
            files = await read_files(body, request.headers["content-type"], FIELD, max_files)
        except FormError as error:
            raise ProblemError(
                "no-image",
                f"A multipart form with at most {max_files} image{'s' * (max_files > 1)} in the field `{FIELD}` was "
                f"expected. {error}",
            ) from error
        if any(len(file) > self.max_bytes for file in files):
            raise _too_large(self.max_bytes)
        return files

    async def body(
        self, request: Request, share: UploadShare, limit: int, what: str = "An image", named_limit: int | None = None
    ) -> bytes:
        """Read a whole body in time.

        Args:
            request: the request.
            share: memory for the body, reserved of the upload budget.
            limit: largest body, in bytes.
            what: name of the body in the error for a larger one.
            named_limit: limit in that error, in bytes; None: `limit`.

        Raises:
            ProblemError: larger, too slow, or no memory left for it.
            ClientDisconnect: the client left while sending.
        """
        given = request.headers.get("content-length", "")
        announced = int(given[:18]) if given.isascii() and given.isdigit() else limit
        if given and announced > limit:
            raise _too_large(named_limit or limit, what)
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
                        raise _too_large(named_limit or limit, what)
                    # Memory for what comes next is reserved before it is read. Reserving announced lengths at once
                    # would let a few slow senders of large bodies take all of it.
                    share.reserve(min(announced, received + STEP_BYTES))
                    chunks.append(chunk)
        except TimeoutError:
            raise ProblemError(
                "too-slow",
                f"A whole upload was expected within {self._timeout_s:g} s.",
                {"connection": "close"},  # the rest of it is not waited for
            ) from None
        return b"".join(chunks)


def require_image(encoded: bytes) -> None:
    """Refuse bytes that do not begin as an image does.

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
    """Whether the body is a multipart form, by the request's content type."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _too_large(max_bytes: int, what: str = "An image") -> ProblemError:
    return ProblemError("too-large", f"{what} of at most {max_bytes:,} bytes was expected. This one is larger.")
