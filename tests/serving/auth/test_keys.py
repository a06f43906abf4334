"""Keys from files and the environment: which are usable, and that nothing secret is repeated."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fixtures.tokens import EC, RSA, jwk, pem, private_pem
from lensmith.config import ServeSettings
from lensmith.errors import SettingsError
from lensmith.serving.auth.jwt import Authenticator

NO_SECRETS = {
    "empty": b"",
    "31 bytes": b"x" * 31,
    "31 bytes and blank lines": b"x" * 31 + b"\n\n",
    "RSA": pem(RSA),
    "EC": pem(EC),
    "private": private_pem(RSA),
    "JWK": json.dumps(jwk(EC, "a")).encode(),
}
NO_PUBLIC_KEYS = {
    "private RSA": private_pem(RSA),
    "private EC": private_pem(EC),
    "short RSA": pem(rsa.generate_private_key(65537, 1024)),
    "another curve": pem(ec.generate_private_key(ec.SECP384R1())),
    "Ed25519": pem(ed25519.Ed25519PrivateKey.generate()),
    "text": b"x" * 40,
    "empty": b"",
    "junk within PEM": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "huge": b"x" * 70_000,
}
UNUSABLE = {
    **{f"secret: {name}": ("jwt_secret_file", content) for name, content in NO_SECRETS.items()},
    **{f"public key: {name}": ("jwt_key_file", content) for name, content in NO_PUBLIC_KEYS.items()},
}


@pytest.mark.parametrize(("setting", "content"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_file_without_a_usable_key_is_refused_and_not_repeated(
    make_authenticator: Callable[..., Authenticator], setting: str, content: bytes
) -> None:
    with pytest.raises(SettingsError) as caught:
        make_authenticator(**{setting: content})
    assert not content or content.decode().strip() not in str(caught.value)


@pytest.mark.parametrize("value", ["", "short-secret"])
def test_a_variable_without_a_usable_secret_does_not_turn_authentication_off(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", value)
    with pytest.raises(SettingsError, match="LENSMITH_JWT_SECRET"):
        Authenticator.of(ServeSettings(bundle="x"))


@pytest.mark.parametrize("setting", ["jwt_secret_file", "jwt_key_file", "jwks"])
def test_a_file_that_does_not_exist_is_named(setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSMITH_JWT_SECRET", raising=False)
    with pytest.raises(SettingsError, match="nowhere"):
        Authenticator.of(ServeSettings(bundle="x", **{setting: str(tmp_path / "nowhere")}))
