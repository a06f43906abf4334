"""JSON Web Key Set (JWKS): public keys of an identity provider, from a URL or file, refreshed in the background.

`jwt.PyJWKClient` is not used: docs/decisions/0016-auth.md has the reasons.
"""

import asyncio
import http.client
import json
import logging
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import jwt

from lensmith.core.credentials import read_secret
from lensmith.core.machine import is_loopback
from lensmith.errors import SettingsError
from lensmith.serving.auth.keys import VerificationKey, verification_key

logger = logging.getLogger(__name__)

REFRESH_S = 300.0
"""Seconds until a set is fetched again: a key that was removed from it is refused after this time at most."""
COOLDOWN_S = 10.0
"""Seconds between two fetches because of unknown key ids, which anybody can make up."""
FETCH_TIMEOUT_S = 3.0
"""Seconds that the server of a set may be silent, and that a token with an unknown key id waits."""
MAX_SET_BYTES = 1_000_000


class JWKS:
    """The keys of a JSON Web Key Set by key id (`kid`), refreshed from time to time and for unknown key ids.

    A refresh that fails leaves the old keys in place, and is tried again.

    Args:
        source: https URL (http on this machine), or path of a file.

    Attributes:
        version: number of changes of the set so far.

    Raises:
        SettingsError: the set cannot be read, or holds no usable key.
    """

    def __init__(self, source: str) -> None:
        self.version = 0
        self._source = source
        self._text, self._keys = read_key_set(source)
        self._refresh_at = time.monotonic() + REFRESH_S
        self._cool_at = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self._failing = False

    def maybe_refresh(self) -> None:
        """Begin to refresh the set in the background if it is old; called for each request, returns at once."""
        if time.monotonic() >= self._refresh_at:
            self._begin_refresh()

    def reload(self) -> int:
        """Begin to read the set again in the background; returns the present number of keys."""
        self._begin_refresh()
        return len(self._keys)

    async def find(self, token: str) -> Sequence[VerificationKey]:
        """The key that a token names, or none; a token without a key id gets the only key of a set of one."""
        kid = jwt.get_unverified_header(token).get("kid")
        found = self._by_id(kid)
        if found is None:
            if time.monotonic() >= self._cool_at:
                self._begin_refresh()
            if self._refreshing and not self._refreshing.done():
                await asyncio.wait([self._refreshing], timeout=FETCH_TIMEOUT_S)
            found = self._by_id(kid)
        return [] if found is None else [found]

    def _by_id(self, kid: str | None) -> VerificationKey | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _begin_refresh(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._cool_at = time.monotonic() + COOLDOWN_S
            self._refresh_at = time.monotonic() + REFRESH_S
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        try:
            text, keys = await asyncio.to_thread(read_key_set, self._source)
        except SettingsError as error:
            self._refresh_at = time.monotonic() + COOLDOWN_S
            if not self._failing:
                logger.warning("the JSON Web Key Set cannot be refreshed, the old keys stay in use: %s", error)
            self._failing = True
            return
        if self._failing:
            logger.warning("the JSON Web Key Set can be refreshed again")
        self._failing = False
        if text != self._text:
            self._text, self._keys = text, keys
            self.version += 1


def read_key_set(source: str) -> tuple[bytes, dict[str | None, VerificationKey]]:
    """The text of a JSON Web Key Set, and its usable keys by key id: public RSA and EC P-256 keys for signatures.

    Raises:
        SettingsError: the set cannot be read, or holds no usable key.
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
    keys: dict[str | None, VerificationKey] = {}
    try:
        listed = jwt.PyJWKSet.from_dict(json.loads(text)).keys
    except (ValueError, TypeError, AttributeError, RecursionError, jwt.PyJWTError):
        listed = []
    for each in listed:
        key = verification_key(each.key)
        fits = each.public_key_use in (None, "sig") and isinstance(each.key_id, str | None)
        if fits and key is not None and key.algorithm == each.algorithm_name:
            keys.setdefault(each.key_id, key)
    if not keys:
        raise SettingsError(
            f"A JSON Web Key Set with a public RSA or EC P-256 key was expected at {source}.",
            _why_unusable(text),
            "Check the address; RS256 and ES256 are the algorithms that are taken.",
        )
    return text, keys


def _why_unusable(text: bytes) -> str:
    """Describe a text without a usable key; no part of it is repeated, as it may be another file with a secret."""
    if not text.strip():
        return "It is empty."
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return "It is a page of HTML." if text.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<" else "It is no JSON."
    if isinstance(content, dict) and "jwks_uri" in content:
        return "It is the issuer's description: the address of its keys stands under `jwks_uri`."
    keys = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(keys, list):
        return "It has no list `keys`."
    return f"It has {len(keys)} keys, none of them of this kind." if keys else "Its list `keys` is empty."


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow no redirect: only the configured address is trusted."""


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
