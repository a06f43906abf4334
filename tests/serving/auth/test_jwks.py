"""JSON Web Key Sets: which keys are used, and when a set is fetched again."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fixtures.tokens import EC, OTHER_RSA, RSA, SECRET, authenticate, b64, bearer, jwk, refused, signed, token
from lensmith.config import ServeSettings
from lensmith.errors import SettingsError
from lensmith.serving.auth import jwks
from lensmith.serving.auth.jwt import Authenticator
from lensmith.serving.problems import ProblemError

pytestmark = pytest.mark.anyio


def test_each_key_of_a_set_checks_the_tokens_that_name_it(make_authenticator: Callable[..., Authenticator]) -> None:
    authenticator = make_authenticator(jwks={"keys": [jwk(RSA, "a"), jwk(EC, "b", use="sig", alg="ES256")]})
    assert authenticate(authenticator, signed(RSA, "a")).subject == "robot"
    assert authenticate(authenticator, signed(EC, "b")).subject == "robot"
    for key, kid in ((RSA, "b"), (EC, "a"), (OTHER_RSA, "a"), (RSA, "c"), (RSA, None), (RSA, "../a")):
        assert refused(authenticator, signed(key, kid)).status == 401


def test_the_only_key_of_a_set_needs_no_name(make_authenticator: Callable[..., Authenticator]) -> None:
    for authenticator in (
        make_authenticator(jwks={"keys": [jwk(RSA, "a")]}),
        make_authenticator(jwks={"keys": [jwk(RSA, None)]}),
    ):
        assert authenticate(authenticator, signed(RSA, None)).subject == "robot"
        assert refused(authenticator, signed(OTHER_RSA, None))


LEFT_OUT = {
    "symmetric": {"kty": "oct", "k": b64(SECRET), "kid": "a", "alg": "HS256"},
    "for encryption": jwk(RSA, "a", use="enc"),
    "for PS256": jwk(RSA, "a", alg="PS256"),
    "RSA for HS256": jwk(RSA, "a", alg="HS256"),
    "short": jwk(rsa.generate_private_key(65537, 1024), "a"),
    "another curve": jwk(ec.generate_private_key(ec.SECP384R1()), "a"),
    "private RSA": {**jwt.algorithms.RSAAlgorithm.to_jwk(RSA, as_dict=True), "kid": "a"},
    "private EC": {**jwt.algorithms.ECAlgorithm.to_jwk(EC, as_dict=True), "kid": "a"},
    "a list for a name": {**jwk(RSA, None), "kid": [1]},
    "RSA without a number": {"kty": "RSA", "kid": "a"},
    "no type": {"kid": "a"},
    "empty": {},
    "a text": "a",
}


@pytest.mark.parametrize("unusable", LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_keys_of_a_set_that_are_not_public_rsa_or_p256_keys_are_left_out(
    make_authenticator: Callable[..., Authenticator], unusable: Any
) -> None:
    authenticator = make_authenticator(jwks={"keys": [unusable, jwk(OTHER_RSA, "good")]})
    assert authenticate(authenticator, signed(OTHER_RSA, "good"))
    assert refused(authenticator, signed(RSA, "a"))
    assert refused(authenticator, bearer(token(header={"alg": "HS256", "kid": "a"})))
    with pytest.raises(SettingsError):
        make_authenticator(jwks={"keys": [unusable]})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is empty"), ("{", "no JSON"), ("[]", "no list `keys`"), ("null", "no list"), ('{"keys": {}}', "no list"),
        ('{"keys": "a"}', "no list"), ('{"keys": []}', "`keys` is empty"), ('{"other": 1}', "no list"),
        ("<!doctype html><title>Sign in</title>", "page of HTML"), ("secret" * 8, "no JSON"),
        ('{"issuer": "https://a", "jwks_uri": "https://a/keys"}', "jwks_uri"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "has 1 keys, none"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_key_set_is_refused_with_the_reason(
    make_authenticator: Callable[..., Authenticator], content: str, why: str
) -> None:
    with pytest.raises(SettingsError, match="jwks") as refused:
        make_authenticator(jwks=content)
    assert why in refused.value.arrived
    assert "secret" not in str(refused.value)


class Served:
    """A server of a key set that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: tuple[int, bytes, dict[str, str]] = (200, b"", {})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                status, content, headers = outer.answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def hold(self, *listed: dict[str, Any]) -> None:
        self.answer = (200, json.dumps({"keys": listed}).encode(), {})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_S", 60.0)  # on a busy machine it answers late
    server = Served()
    try:
        yield server
    finally:
        server.close()


def of_url(url: str) -> Authenticator:
    authenticator = Authenticator.of(ServeSettings(bundle="x", jwks=url))
    assert authenticator is not None
    return authenticator


async def test_a_new_key_is_fetched_when_a_token_names_it_and_not_more_often_than_that(
    served: Served, clock: Any
) -> None:
    served.hold(jwk(RSA, "old"))
    authenticator = of_url(served.url)
    assert await authenticator.authenticate(signed(RSA, "old"))
    assert served.asked == 1
    served.hold(jwk(RSA, "old"), jwk(EC, "new"))
    assert await authenticator.authenticate(signed(EC, "new"))
    assert served.asked == 2
    for number in range(20):  # names that are made up cost one request in ten seconds
        with pytest.raises(ProblemError):
            await authenticator.authenticate(signed(EC, f"made up {number}"))
    assert served.asked == 2
    clock.now += jwks.COOLDOWN_S
    await asyncio.gather(
        *(authenticator.authenticate(signed(EC, f"made up {number}")) for number in range(20)),
        return_exceptions=True,
    )
    assert served.asked == 3


async def test_a_key_that_is_taken_out_is_refused_after_the_next_reading_even_for_known_tokens(
    served: Served, clock: Any
) -> None:
    served.hold(jwk(RSA, "old"), jwk(EC, "new"))
    authenticator = of_url(served.url)
    known = signed(RSA, "old")
    assert await authenticator.authenticate(known)
    served.hold(jwk(EC, "new"))
    assert await authenticator.authenticate(known)
    clock.now += jwks.REFRESH_S
    assert await authenticator.authenticate(known)  # which begins to read, and does not wait
    assert authenticator._keys._refreshing is not None  # type: ignore[union-attr]
    await authenticator._keys._refreshing  # type: ignore[union-attr]
    with pytest.raises(ProblemError):
        await authenticator.authenticate(known)
    assert await authenticator.authenticate(signed(EC, "new"))


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"", {}),
        (200, b"", {}),
        (200, b'{"keys": []}', {}),
        (200, b"x" * 1_000_001, {}),
        (302, b"", {"location": "/"}),
    ],
    ids=["500", "empty", "no keys", "too large", "elsewhere"],
)
async def test_a_set_that_cannot_be_read_again_leaves_the_old_keys(
    served: Served, clock: Any, answer: tuple[int, bytes, dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    served.hold(jwk(RSA, "old"))
    authenticator = of_url(served.url)
    served.answer = answer
    for pause in (jwks.REFRESH_S, jwks.COOLDOWN_S, jwks.COOLDOWN_S):
        clock.now += pause
        assert await authenticator.authenticate(signed(RSA, "old"))
        await authenticator._keys._refreshing  # type: ignore[union-attr, misc]
    assert served.asked == 4
    assert len(caplog.records) == 1  # logged once
    served.hold(jwk(RSA, "old"), jwk(EC, "new"))
    clock.now += jwks.COOLDOWN_S
    assert await authenticator.authenticate(signed(EC, "new"))
    assert len(caplog.records) == 2


async def test_a_set_whose_server_is_gone_leaves_the_old_keys(served: Served, clock: Any) -> None:
    served.hold(jwk(RSA, "old"))
    authenticator = of_url(served.url)
    served.close()
    clock.now += jwks.REFRESH_S
    assert await authenticator.authenticate(signed(RSA, "old"))
    with pytest.raises(ProblemError):
        await authenticator.authenticate(signed(EC, "new"))
    assert await authenticator.authenticate(signed(RSA, "old"))


@pytest.mark.parametrize("status", [404, 302])
def test_without_its_keys_the_service_does_not_start_and_follows_no_redirect(served: Served, status: int) -> None:
    served.answer = (status, b"", {"location": served.url})
    with pytest.raises(SettingsError, match=str(status)):
        of_url(served.url)
    assert served.asked == 1


@pytest.mark.parametrize(
    "url",
    ["http://example.org/keys", "http://127.0.0.1.example.org/keys", "http:///keys", "ftp://127.0.0.1/keys",
     "file:///etc/hostname", "data://a,{}", "https://me:hunter@127.0.0.1/keys", "http://["],
)  # fmt: skip
def test_keys_come_over_https_or_from_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks.urllib.request, "build_opener", None)  # nothing is asked
    with pytest.raises(SettingsError) as caught:
        of_url(url)
    assert "hunter" not in str(caught.value)


def test_a_set_in_a_file_is_read_again_too(tmp_path: Path, clock: Any) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk(RSA, "old")]}))
    authenticator = of_url(str(file))
    file.write_text(json.dumps({"keys": [jwk(RSA, "old"), jwk(EC, "new")]}))
    assert authenticate(authenticator, signed(EC, "new")).subject == "robot"
