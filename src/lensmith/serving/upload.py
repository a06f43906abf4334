"""Uploads: the images of a request, read within their limits from a raw body or a multipart form."""

import asyncio
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from lensmith.config import ServeSettings
from lensmith.imaging.decode_cost import DecodeCost, decode_cost
from lensmith.imaging.formats import FORMATS, describe, identify, names
from lensmith.serving.execution.admission import STEP_BYTES, UploadShare
from lensmith.serving.multipart import FormError, read_files
from lensmith.serving.problems import ProblemError

FIELD = "file"
ENVELOPE_BYTES = 65_536
"""Bytes that a multipart form may add to each file: boundaries, part headers, other small fields."""


@dataclass(frozen=True)
class UploadLimits:
    """What one uploaded image may be.

    Attributes:
        max_bytes: largest image, in bytes.
        formats: keys of the formats that are taken (`lensmith.imaging.formats`).
        max_pixels: largest picture, in pixels.
    """

    max_bytes: int
    formats: tuple[str, ...] = ("jpeg", "png")
    max_pixels: int = 50_000_000

    def require_image(self, encoded: bytes) -> None:
        """Refuse bytes that do not begin as an image of a format that is taken.

        Raises:
            ProblemError: empty, or of no such format.
        """
        form = identify(encoded)
        if form is not None and form.key in self.formats:
            return
        wanted = f"An image was expected in one of these formats: {names(self.formats)}."
        if not encoded:
            raise ProblemError("no-image", f"{wanted} The body is empty.")
        arrived = f"{wanted} This is none of them: {describe(encoded)}. Save it as {FORMATS[self.formats[0]].name}"
        if form is not None:
            arrived += f", or start the service with --formats {','.join((*self.formats, form.key))}"
        raise ProblemError("not-jpeg-or-png", f"{arrived}.")

    def cost(self, image: object) -> DecodeCost | None:
        """The cost of decoding an uploaded image; None for a small one, and for what is a tensor already."""
        return decode_cost(image, self.max_pixels) if isinstance(image, bytes) else None

    def require_fitting(self, encoded: bytes) -> None:
        """Refuse bytes that are too many, or that do not begin as an image of a format that is taken.

        Raises:
            ProblemError: too large, empty, or of no such format.
        """
        if len(encoded) > self.max_bytes:
            raise too_large(self.max_bytes, len(encoded))
        self.require_image(encoded)


def too_large(max_bytes: int, found: int | None = None, what: str = "An image") -> ProblemError:
    """The problem of an upload of more than `max_bytes` bytes; `found` is its size, where that is known."""
    arrived = f"has {found:,}" if found else "is larger"
    return ProblemError(
        "too-large",
        f"{what} of at most {max_bytes:,} bytes was expected. This one {arrived}. Scale it down; "
        "the service's setting --max-bytes is the limit on one image.",
    )


class UploadReader:
    """Reads request bodies within the limits of the settings on bytes, images and time."""

    def __init__(self, settings: ServeSettings) -> None:
        self.limits = UploadLimits(settings.max_bytes, settings.formats, settings.max_pixels)
        self.max_bytes = settings.max_bytes
        self.max_images = settings.max_images
        self._timeout_s = settings.upload_timeout_s

    async def image(self, request: Request, share: UploadShare) -> bytes:
        """Read the one encoded image that a request carries.

        Args:
            request: the request, whose body is an image, or a form with one in the field `file`.
            share: memory for it, reserved of the upload budget.

        Raises:
            ProblemError: larger than allowed (before it is read, where the length was announced), none there, of no
                format that is taken (by its first bytes, whatever the content type says), too slow, or no memory left.
            ClientDisconnect: the client left while sending.
        """
        if is_form(request):
            (encoded,) = await self._form(request, share, 1)
        else:
            encoded = await self.body(request, share, self.max_bytes)
        self.limits.require_image(encoded)
        return encoded

    async def images(self, request: Request, share: UploadShare) -> list[bytes]:
        """Read the encoded images of a form, one or more in the field `file`, without looking at their content.

        Raises:
            ProblemError: as `image`; or no form, or more images than allowed.
            ClientDisconnect: the client left while sending.
        """
        require_plain(request)
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
        for file in files:
            if len(file) > self.max_bytes:
                raise too_large(self.max_bytes, len(file))
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
            ProblemError: larger, compressed, too slow, or no memory left for it.
            ClientDisconnect: the client left while sending.
        """
        require_plain(request)
        given = request.headers.get("content-length", "")
        announced = int(given[:18]) if given.isascii() and given.isdigit() else limit
        if given and announced > limit:
            raise too_large(named_limit or limit, announced if named_limit is None else None, what)
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
                        raise too_large(named_limit or limit, None, what)
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


def require_plain(request: Request) -> None:
    """Refuse a body that is compressed for the way, whose limits would hold before it is unpacked only.

    Raises:
        ProblemError: the request has a Content-Encoding, or a Transfer-Encoding other than chunked.
    """
    given = ",".join(request.headers.get(name, "") for name in ("content-encoding", "transfer-encoding"))
    encodings = [each.strip() for each in given.lower().split(",")]
    encodings = [each for each in encodings if each not in ("", "identity", "chunked")]
    if encodings:
        raise ProblemError(
            "content-encoding",
            "A body without Content-Encoding, and with no Transfer-Encoding but chunked, was expected. This one is "
            f"{', '.join(encodings)[:100]!r}. Send it as it is; images are compressed already.",
            {"accept-encoding": "identity"},
        )


def is_form(request: Request) -> bool:
    """Whether the body is a multipart form, by the request's content type."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")
