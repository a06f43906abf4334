"""Keys that check a token's signature: an HS256 secret, or a public key for RS256 or ES256.

The algorithm belongs to the key. The algorithm that a token names is compared with it, and never followed.
"""

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


class StaticKey:
    """One key for all tokens, the same for as long as the service runs."""

    version = 0

    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    def maybe_refresh(self) -> None:
        """Do nothing: a static key does not change."""

    async def find(self, token: str) -> VerificationKey | None:
        """The key, whatever key id the token names."""
        return self._key


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


def public_key(path: Path) -> VerificationKey:
    """The public key in a PEM file; RSA makes it RS256, EC P-256 makes it ES256.

    Raises:
        SettingsError: the file holds something else, such as a private key: the service must not be able to sign.
    """
    try:
        found = verification_key(load_pem_public_key(read_secret(path)))
    except (ValueError, UnsupportedAlgorithm):
        found = None
    if found is None:
        raise SettingsError(
            f"A public key was expected in {path}: PEM, RSA from {MIN_RSA_BITS} bits on, or EC P-256.",
            "Something else is there.",
            "Take it from a private key with: openssl pkey -in private.pem -pubout -out public.pem",
        )
    return found


def verification_key(key: object) -> VerificationKey | None:
    """A public key of `cryptography` with its algorithm; None: private, too short, or of another kind."""
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return VerificationKey("RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return VerificationKey("ES256", key)
    return None
