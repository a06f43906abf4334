"""JSON Web Tokens (JWT): authentication of each request, with the scopes that its token grants.

A token that is refused gets the same answer whatever is wrong with it. The reason goes to the log, without the token.
"""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from lensmith.config import ServeSettings
from lensmith.core.credentials import TOKEN_SECRET, token_secrets
from lensmith.core.machine import is_loopback
from lensmith.errors import ServiceError, SettingsError
from lensmith.serving.auth.jwks import JWKS
from lensmith.serving.auth.keys import StaticKeys, VerificationKey, public_keys, secret_key
from lensmith.serving.problems import ProblemError

logger = logging.getLogger(__name__)

MAX_TOKEN_BYTES = 8192
LEEWAY_S = 10
"""Seconds by which the clocks of this machine and of the maker of tokens may differ."""
MAX_CACHED_TOKENS = 4096
"""Checked tokens that are cached, so that a caller's next request costs no signature (100 µs with ES256)."""
LOG_EVERY_S = 10.0
"""Seconds between two log lines about tokens refused for the same reason; anybody can send such tokens."""

_REQUIRED = ["exp", "iss", "aud", "sub"]
_LAST_S = 253_402_300_800  # the end of the year 9999, in which the last date ends
_MAX_SUBJECT = 256
_SHAPE = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_CHALLENGE = 'Bearer realm="lensmith"'


@dataclass(frozen=True)
class Caller:
    """The authenticated sender of a request.

    Attributes:
        subject: the token's `sub`, 1 to 256 printable characters.
        scopes: the scopes that the token grants, such as `predict` and `admin`; neither includes the other.
    """

    subject: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Refuse a caller whose token lacks a scope: `predict` or `admin`.

        Raises:
            ProblemError: `forbidden`.
        """
        if scope not in self.scopes:
            challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            detail = f"A token with the scope `{scope}` was expected. This one is valid, but lacks it."
            raise ProblemError("forbidden", detail, {"www-authenticate": challenge})


class Authenticator:
    """Authenticates requests by their bearer tokens.

    Args:
        keys: source of the keys that check signatures.
        issuer: required `iss` of a token.
        audience: required `aud` of a token, alone or among others.
    """

    def __init__(self, keys: StaticKeys | JWKS, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._checked: OrderedDict[tuple[int, bytes], tuple[Caller, float]] = OrderedDict()
        self._quiet_until: dict[str, float] = {}

    @classmethod
    def of(cls, settings: ServeSettings) -> Authenticator | None:
        """The authenticator of the settings and LENSMITH_JWT_SECRET; None: they name no secret, key or key set.

        Raises:
            SettingsError: the secret, key or key set cannot be used, or several are named.
        """
        keys: StaticKeys | JWKS
        secrets = token_secrets(settings.jwt_secret_file)
        if secrets and (settings.jwt_key_file or settings.jwks):
            raise SettingsError(
                "One way to check tokens was expected.",
                f"{TOKEN_SECRET} is set, and jwt_key_file or jwks is named.",
                "Unset the one, or leave out the other.",
            )
        secret_file, key_file = settings.jwt_secret_file, settings.jwt_key_file
        if secrets:
            keys = StaticKeys(lambda: [secret_key(each) for each in token_secrets(secret_file)])
        elif key_file:
            keys = StaticKeys(lambda: public_keys(key_file))
        elif settings.jwks:
            keys = JWKS(settings.jwks)
        else:
            return None
        return cls(keys, settings.jwt_issuer, settings.jwt_audience)

    async def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        """The caller whose token is in a request's headers.

        Args:
            headers: names in lower case and values, as ASGI has them.

        Raises:
            ProblemError: `unauthenticated`.
        """
        token = _bearer(headers)
        self._keys.maybe_refresh()
        # With the version of the keys, as one may be removed; with the hash, as comparing tokens themselves would
        # take longer the more of their characters are right.
        cache_key = (self._keys.version, hashlib.sha256(token).digest())
        if known := self._checked.get(cache_key):
            caller, until = known
            if time.time() >= until:
                del self._checked[cache_key]
                raise self._refused("ExpiredSignatureError")
            self._checked.move_to_end(cache_key)
            return caller
        try:
            caller, until = await self._check(token.decode())
        except jwt.PyJWTError as error:
            raise self._refused(type(error).__name__) from None
        self._checked[cache_key] = caller, until
        if len(self._checked) > MAX_CACHED_TOKENS:
            self._checked.popitem(last=False)
        return caller

    def reload_keys(self) -> int:
        """Read secrets and keys again, and return their number; a key set is fetched in the background.

        Raises:
            SettingsError: none is usable now; the old ones stay in use.
        """
        return self._keys.reload()

    async def _check(self, token: str) -> tuple[Caller, float]:
        claims = self._claims(token, await self._keys.find(token))
        # PyJWT takes "1700000000" and true for times; the standard does not.
        for name in ("exp", "nbf", "iat"):
            if name in claims and type(claims[name]) not in (int, float):
                raise jwt.DecodeError
        subject, scope = claims["sub"], claims.get("scope", "")
        if not (0 < len(subject) <= _MAX_SUBJECT and subject.isprintable() and isinstance(scope, str)):
            raise jwt.InvalidTokenError
        if claims["exp"] >= _LAST_S:
            raise jwt.DecodeError
        return Caller(subject, frozenset(scope.split())), int(claims["exp"]) + LEEWAY_S

    def _claims(self, token: str, keys: Sequence[VerificationKey]) -> dict[str, Any]:
        """The claims of a token that one of the keys has signed."""
        refused: jwt.PyJWTError = jwt.InvalidKeyError()
        for key in keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.material,
                    algorithms=[key.algorithm],
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=LEEWAY_S,
                    options={"require": _REQUIRED, "enforce_minimum_key_length": True},
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
                refused = error  # perhaps another key's
            else:
                return claims
        raise refused

    def _refused(self, reason: str) -> ProblemError:
        if time.monotonic() >= self._quiet_until.get(reason, 0.0):
            self._quiet_until[reason] = time.monotonic() + LOG_EVERY_S
            logger.info("a token was refused: %s (at most one line in %.0f s)", reason, LOG_EVERY_S)
        return _invalid()


def require_authentication(settings: ServeSettings, authenticator: Authenticator | None) -> None:
    """Refuse to listen beyond this machine without authentication, unless `--insecure` is given.

    Raises:
        ServiceError: others can reach the address, and nothing checks tokens.
    """
    if authenticator is not None or settings.insecure or _is_local(settings.host):
        return
    raise ServiceError(
        f"Authentication was expected, as others can reach {settings.host or 'every address'}.",
        "No secret, key or key set is named, so anybody could send requests.",
        "Name one with --jwt-secret-file, --jwt-key-file or --jwks, or give --insecure to serve everybody.",
    )


def _is_local(host: str) -> bool:
    if is_loopback(host):
        return True
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return all(is_loopback(str(address[0])) for *_, address in found)


def _bearer(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    given = [value for name, value in headers if name == b"authorization"]
    if not given:
        raise ProblemError(
            "unauthenticated",
            "A token was expected in the header `Authorization: Bearer TOKEN`. There is no such header.",
            {"www-authenticate": _CHALLENGE},
        )
    scheme, _, token = given[0].partition(b" ")
    well_formed = len(token) <= MAX_TOKEN_BYTES and _SHAPE.fullmatch(token)
    if len(given) > 1 or scheme.lower() != b"bearer" or not well_formed:
        raise _invalid()
    return token


def _invalid() -> ProblemError:
    return ProblemError(
        "unauthenticated",
        "One valid token of this service was expected, as `Authorization: Bearer TOKEN`. The one that arrived is not "
        "valid, or no longer. Get a new one.",
        {"www-authenticate": f'{_CHALLENGE}, error="invalid_token"'},
    )
