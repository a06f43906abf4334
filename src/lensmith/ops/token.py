"""JSON Web Tokens for callers of the service: signed claims about caller, permissions and expiry."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lensmith.config import TokenSettings
from lensmith.core.credentials import TOKEN_SECRET, make_secret, read_secret, token_secrets
from lensmith.core.result import Result
from lensmith.errors import SettingsError

MIN_RSA_BITS = 2048


@dataclass(frozen=True)
class Token(Result):
    """A signed token with its claims.

    Attributes:
        text: signed text for `Authorization: Bearer`; whoever has it can use it.
        new_secret: file with a new secret, if none existed before.
    """

    hidden: ClassVar[tuple[str, ...]] = ("text", "new_secret")

    text: str
    subject: str
    scopes: tuple[str, ...]
    issuer: str
    audience: str
    expires: datetime
    algorithm: str
    kid: str | None
    new_secret: Path | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"token": self.text, **super().as_dict()}


def token(settings: TokenSettings) -> Token:
    """Sign a token: RS256 or ES256 with a private key, else HS256 with a secret, whose file is made if it is missing.

    Raises:
        SettingsError: a key or secret that is missing or unusable.
    """
    made = settings.secret_file is not None and make_secret(settings.secret_file)
    algorithm, key = _signer(settings)
    now = datetime.now(UTC).replace(microsecond=0)
    expires = datetime.fromtimestamp(now.timestamp() + int(settings.expires), UTC)
    claims = {
        "iss": settings.issuer,
        "aud": settings.audience,
        "sub": settings.subject,
        "scope": " ".join(settings.scopes),
        "iat": now,
        "exp": expires,
        "jti": secrets.token_hex(8),
    }
    return Token(
        text=jwt.encode(claims, key, algorithm, {"kid": settings.kid} if settings.kid else None),
        subject=settings.subject,
        scopes=settings.scopes,
        issuer=settings.issuer,
        audience=settings.audience,
        expires=expires,
        algorithm=algorithm,
        kid=settings.kid,
        new_secret=settings.secret_file if made else None,
    )


def _signer(settings: TokenSettings) -> tuple[str, RSAPrivateKey | EllipticCurvePrivateKey | bytes]:
    if settings.key_file is not None:
        return _private_key(settings.key_file)
    known = token_secrets(settings.secret_file)
    if not known:
        raise SettingsError(
            "A key or secret to sign the token with was expected.",
            "There is none.",
            f"Name --secret-file FILE (made if it is missing) or --key-file PRIVATE.pem, or set {TOKEN_SECRET}.",
        )
    return "HS256", known[0]  # the current one


def _private_key(path: Path) -> tuple[str, RSAPrivateKey | EllipticCurvePrivateKey]:
    try:
        key: object = load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None  # not PEM, not a private key, or encrypted with a password
    if isinstance(key, RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return "RS256", key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return "ES256", key
    raise SettingsError(
        f"A private key was expected in {path}: PEM without a password, RSA from {MIN_RSA_BITS} bits on, or EC P-256.",
        "Something else is there.",
        "Make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out private.pem",
    )
