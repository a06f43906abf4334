"""Keys that check a token's signature: an HS256 secret, or a public key for RS256 or ES256.

The algorithm belongs to the key. The algorithm that a token names is compared with it, and never followed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from lensmith.core.credentials import read_secret
from lensmith.errors import SettingsError

MIN_RSA_BITS = 2048


class VerificationKey(NamedTuple):
    """A key that checks signatures, and the algorithm that it is for: HS256, RS256 or ES256."""

    algorithm: str
    material: Any


class StaticKeys:
    """Keys from a file or variable, of which each may have signed a token: the current one and older or newer ones.

    Args:
        read: reads the keys; called again by `reload`.

    Attributes:
        version: number of changes of the keys so far.
    """

    def __init__(self, read: Callable[[], Sequence[VerificationKey]]) -> None:
        self.version = 0
        self._read = read
        self._keys = tuple(read())

    def maybe_refresh(self) -> None:
        """Do nothing: these keys change on `reload` only."""

    def reload(self) -> int:
        """Read the keys again, and return their number; the old ones stay in use where that fails.

        Raises:
            SettingsError: there is no usable key now.
        """
        keys = tuple(self._read())
        if keys != self._keys:
            self._keys, self.version = keys, self.version + 1
        return len(keys)

    async def find(self, token: str) -> Sequence[VerificationKey]:
        """All keys, whatever key id the token names."""
        return self._keys


def secret_key(secret: bytes) -> VerificationKey:
    """The key for HS256 tokens.

    Raises:
        SettingsError: `secret` is a PEM, DER or JSON key, which may be known to people who must not sign.
    """
    try:
        jwt.encode({}, secret, "HS256")
    except jwt.InvalidKeyError as error:
        raise SettingsError(
            "A random secret was expected for HS256 tokens.",
            "A key or certificate arrived.",
            "Name a public key with --jwt-key-file, or let `lensmith token NAME --secret-file NEW_FILE` make a secret.",
        ) from error
    return VerificationKey("HS256", secret)


def public_keys(path: Path) -> list[VerificationKey]:
    """The public keys in a PEM file, one after the other; RSA makes one RS256, EC P-256 makes it ES256.

    Raises:
        SettingsError: the file holds something else, such as a private key: the service must not be able to sign.
    """
    begin = b"-----BEGIN "
    _, *blocks = read_secret(path).split(begin)
    found = [_public_key(begin + block) for block in blocks]
    usable = [key for key in found if key is not None]
    if not usable or len(usable) < len(found):
        raise SettingsError(
            f"Public keys were expected in {path}: PEM, RSA from {MIN_RSA_BITS} bits on, or EC P-256.",
            "Something else is there.",
            "Take one from a private key with: openssl pkey -in private.pem -pubout -out public.pem",
        )
    return usable


def _public_key(pem: bytes) -> VerificationKey | None:
    try:
        return verification_key(load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm):
        return None


def verification_key(key: object) -> VerificationKey | None:
    """A public key of `cryptography` with its algorithm; None: private, too short, or of another kind."""
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return VerificationKey("RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return VerificationKey("ES256", key)
    return None
