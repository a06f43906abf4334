"""Addresses and the bytes of requests."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httptools
import pytest
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser

from lensmith.errors import SettingsError
from lensmith.ops.loadtest.target import Target, image_requests


class Parsed:
    """A request as a server reads it."""

    def __init__(self, request: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.body, self.path, self.whole = b"", "", False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(request)
        self.method = parser.get_method().decode()

    def on_url(self, url: bytes) -> None:
        self.path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", Target("127.0.0.1", 8000, "/predict")),
        ("http://localhost:8000/", Target("localhost", 8000, "/predict")),
        ("https://example.org/v1/predict?top_k=1", Target("example.org", 443, "/v1/predict?top_k=1", tls=True)),
        ("http://[::1]:80", Target("::1", 80, "/predict")),
    ],
)
def test_a_url_without_a_path_asks_for_predict(url: str, expected: Target) -> None:
    assert Target.parse(url) == expected
    assert Target.parse(expected.url) == expected


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:99999", "http://a b", "http://x/\r\nEvil: 1"])
def test_what_is_no_url_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        Target.parse(url)


def test_a_raw_request_is_the_image_alone() -> None:
    (request,) = image_requests(Target("h", 1), [b"\xff\xd8picture"])
    parsed = Parsed(request)
    assert (parsed.method, parsed.path, parsed.whole) == ("POST", "/predict", True)
    assert parsed.headers["content-type"] == "image/jpeg"
    assert parsed.body == b"\xff\xd8picture"
    assert "authorization" not in parsed.headers


def test_a_form_holds_the_image_in_its_field_file(colours: Path) -> None:
    red_png = (colours / "red" / "000.png").read_bytes()
    (request,) = image_requests(Target("h", 1), [red_png], form=True)
    parsed = Parsed(request)
    assert parse_options_header(parsed.headers["content-type"])[0] == b"multipart/form-data"

    async def body() -> AsyncIterator[bytes]:
        yield parsed.body

    async def read() -> bytes:
        form = await MultiPartParser(Headers(parsed.headers), body()).parse()
        file = form["file"]
        assert file.content_type == "image/png"
        return await file.read()

    assert asyncio.run(read()) == red_png


def test_a_token_is_sent_as_a_bearer_token() -> None:
    (request,) = image_requests(Target("h", 1), [b"x"], token="abc.def")
    assert Parsed(request).headers["authorization"] == "Bearer abc.def"
