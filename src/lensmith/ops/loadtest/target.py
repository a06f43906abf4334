"""Address of a service under test, and the bytes of its requests, which are built before the test begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from lensmith.errors import SettingsError
from lensmith.imaging.formats import FORMATS, identify

BOUNDARY = "lensmith-bench-3f1c9a7e5b"
PREDICT = "/predict"


@dataclass(frozen=True)
class Target:
    """Address of a service.

    Attributes:
        host: host name or address, without brackets.
        port: TCP port.
        path: path of the URL with its query.
        tls: whether the scheme is https.
    """

    host: str
    port: int
    path: str = PREDICT
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Target:
        """Parse a URL; one without a path means /predict.

        Raises:
            SettingsError: not an http or https URL.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or not url.isascii()
            or any(map(str.isspace, url))
        ):
            raise SettingsError(
                "The URL of a service, or a bundle, was expected, such as http://127.0.0.1:8000.",
                f"{url!r} arrived.",
                "Give the URL that `lensmith serve` printed, or the path of a bundle.",
            )
        path = (parts.path if parts.path not in ("", "/") else PREDICT) + (f"?{parts.query}" if parts.query else "")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), path, tls)

    @property
    def url(self) -> str:
        """URL with the path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.path}"

    def request(self, body: bytes, content_type: str, token: str | None = None) -> bytes:
        """The bytes of one POST request, with a bearer token if there is one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {host}:{self.port}",
            "User-Agent: lensmith-bench",
            "Accept: application/json",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
            *([f"Authorization: Bearer {token}"] if token else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def image_requests(
    target: Target, images: Iterable[bytes], *, form: bool = False, token: str | None = None
) -> Sequence[bytes]:
    """The bytes of a request for each encoded image, as a raw body or as the field `file` of a multipart form."""
    requests = []
    for encoded in images:
        kind = (identify(encoded) or FORMATS["jpeg"]).mime
        if form:
            name = f"image.{kind.partition('/')[2]}"
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            body = f"{head}Content-Type: {kind}\r\n\r\n".encode() + encoded + f"\r\n--{BOUNDARY}--\r\n".encode()
            requests.append(target.request(body, f"multipart/form-data; boundary={BOUNDARY}", token))
        else:
            requests.append(target.request(encoded, kind, token))
    return requests
