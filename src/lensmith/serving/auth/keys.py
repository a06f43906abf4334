"""Which key checks a token: one that was configured, or one of a JSON Web Key Set, which may change at any time.

The algorithm belongs to the key. What a token says of its own algorithm is compared with that, and never followed.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import json
import logging
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from lensmith.core.credentials import read_secret
from lensmith.errors import SettingsError

logger = logging.getLogger(__name__)

MIN_RSA_BITS = 2048
REFRESH_S = 300.0
"""Seconds after which a set is read again: a key that was taken out of it is refused after so long at most."""
COOLDOWN_S = 10.0
"""Seconds between two readings because of a key that is not in the set: anybody can name such keys."""
FETCH_TIMEOUT_S = 3.0
"""Seconds that a set's server may be silent, and that a token with a new key waits for it."""
MAX_SET_BYTES = 1_000_000


class Key(NamedTuple):
    """What checks a signature, and by which algorithm: HS256, RS256 or ES256."""

    algorithm: str
    material: Any


class OneKey:
    """The key of all tokens, the same for as long as the service runs."""

    version = 0

    def __init__(self, key: Key) -> None:
        self._key = key

    def tend(self) -> None:
        """Nothing: it does not age."""

    async def find(self, token: str) -> Key | None:
        """The key, whatever the token says of its own."""
        return self._key


class KeySet:
    """The keys of a JSON Web Key Set by their names (`kid`), read again from time to time and for names that are new.

    A set that cannot be read again leaves the old keys in place, and is tried again.

    Args:
        source: https URL (http on this machine), or path of a file.

    Attributes:
        version: grows whenever the set has changed.

    Raises:
        SettingsError: it cannot be read, or holds no usable key.
    """

    def __init__(self, source: str) -> None:
        self.version = 0
        self._source = source
        self._text, self._keys = read_key_set(source)
        self._due = time.monotonic() + REFRESH_S
        self._rested = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._failing = False

    def tend(self) -> None:
        """Begin to read the set again if it is old; returns at once. Called for each request."""
        if time.monotonic() >= self._due:
            self._read_again()

    async def find(self, token: str) -> Key | None:
        """The key that a token names, or None; one that names none gets the only key of a set of one."""
        name = jwt.get_unverified_header(token).get("kid")
        found = self._named(name)
        if found is None:
            if time.monotonic() >= self._rested:
                self._read_again()
            if self._reading and not self._reading.done():
                await asyncio.wait([self._reading], timeout=FETCH_TIMEOUT_S)
            found = self._named(name)
        return found

    def _named(self, name: str | None) -> Key | None:
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _read_again(self) -> None:
        if self._reading is None or self._reading.done():
            self._rested = time.monotonic() + COOLDOWN_S
            self._due = time.monotonic() + REFRESH_S
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            text, keys = await asyncio.to_thread(read_key_set, self._source)
        except SettingsError as error:
            self._due = time.monotonic() + COOLDOWN_S
            if not self._failing:
                logger.warning("the keys of tokens stay as they were: %s", error)
            self._failing = True
            return
        if self._failing:
            logger.warning("the keys of tokens can be read again")
        self._failing = False
        if text != self._text:
            self._text, self._keys = text, keys
            self.version += 1


def secret_key(secret: bytes) -> Key:
    """The key of HS256.

    Raises:
        SettingsError: it is a PEM, DER or JSON key, which somebody may hold who may not sign.
    """
    try:
        jwt.encode({}, secret, "HS256")
    except jwt.InvalidKeyError as error:
        raise SettingsError(
            "A random secret was expected for HS256 tokens.",
            "A key or certificate arrived.",
            "Name a public key with --jwt-key-file, or let `lensmith token NAME --secret-file NEW_FILE` make a secret.",
        ) from error
    return Key("HS256", secret)


def public_key(path: Path) -> Key:
    """The public key in a PEM file; RSA makes it RS256, EC P-256 makes it ES256.

    Raises:
        SettingsError: something else is there; a private key, too, as the service must not be able to sign.
    """
    try:
        found = _usable(load_pem_public_key(read_secret(path)))
    except (ValueError, UnsupportedAlgorithm):
        found = None
    if found is None:
        raise SettingsError(
            f"A public key was expected in {path}: PEM, RSA from {MIN_RSA_BITS} bits on, or EC P-256.",
            "Something else is there.",
            "Take it from a private key with: openssl pkey -in private.pem -pubout -out public.pem",
        )
    return found


def read_key_set(source: str) -> tuple[bytes, dict[str | None, Key]]:
    """A JSON Web Key Set as it was read, and its usable keys by name: public RSA and EC P-256 keys for signatures.

    Raises:
        SettingsError: it cannot be read, or holds no usable key.
    """
    if "://" in source and "@" in source:  # not repeated, as it may be a password
        raise SettingsError(
            "The address of a JSON Web Key Set was expected without a name or password.",
            "There is an @ in it.",
            "Name a set that everybody may read: it holds public keys.",
        )
    try:
        text = _fetch(urlsplit(source)) if "://" in source else read_secret(Path(source))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SettingsError(
            f"A JSON Web Key Set was expected at {source}.",
            f"It cannot be read ({type(error).__name__}: {error}).",
            "Check the address, and whether its server answers here.",
        ) from error
    keys: dict[str | None, Key] = {}
    try:
        listed = jwt.PyJWKSet.from_dict(json.loads(text)).keys
    except (ValueError, TypeError, AttributeError, RecursionError, jwt.PyJWTError):
        listed = []
    for each in listed:
        key = _usable(each.key)
        fits = each.public_key_use in (None, "sig") and isinstance(each.key_id, str | None)
        if fits and key is not None and key.algorithm == each.algorithm_name:
            keys.setdefault(each.key_id, key)
    if not keys:
        raise SettingsError(
            f"A JSON Web Key Set with a public RSA or EC P-256 key was expected at {source}.",
            "It holds none.",
            "Check the address; RS256 and ES256 are the algorithms that are taken.",
        )
    return text, keys


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _usable(key: object) -> Key | None:
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return Key("RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return Key("ES256", key)
    return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Stay: the address that was configured is the one that is trusted."""


def _fetch(address: SplitResult) -> bytes:
    host = address.hostname or ""
    if address.scheme != "https" and not (address.scheme == "http" and is_loopback(host)):
        raise ValueError("https is needed, or http on this machine")
    handlers: list[Any] = [_NoRedirect]
    if is_loopback(host):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    with opener.open(address.geturl(), timeout=FETCH_TIMEOUT_S) as response:
        content: bytes = response.read(MAX_SET_BYTES + 1)
    if len(content) > MAX_SET_BYTES:
        raise ValueError(f"it is larger than {MAX_SET_BYTES:,} bytes")
    return content
