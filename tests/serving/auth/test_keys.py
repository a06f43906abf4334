"""Keys from files and the environment: which are usable, and that nothing secret is repeated."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fixtures.tokens import EC, RSA, jwk, pem, private_pem
from lensmith.config import ServeSettings
from lensmith.core.credentials import redis_password, token_secrets
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


CURRENT, PREVIOUS = "0123456789abcdef" * 2, "fedcba9876543210" * 2
SAME_SECRETS = [
    CURRENT, f"{CURRENT}\n", f"{CURRENT}\r\n", f"{CURRENT}\n\n", f"\ufeff{CURRENT}\n", f"{CURRENT}\n{PREVIOUS}\n",
    f"{CURRENT}\r\n\r\n{PREVIOUS}\r\n",
]  # fmt: skip


@pytest.mark.parametrize("text", SAME_SECRETS)
def test_a_file_and_a_variable_with_the_same_text_hold_the_same_secrets(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(text.encode())
    monkeypatch.setenv("LENSMITH_JWT_SECRET", text)
    expected = tuple(each.encode() for each in (CURRENT, PREVIOUS) if each in text)
    assert token_secrets(tmp_path / "secret") == token_secrets() == expected


@pytest.mark.parametrize("text", [f" {CURRENT}", f"{CURRENT} ", f"{CURRENT}\t\n", f"{CURRENT}\n {PREVIOUS}", "\n", " "])
def test_blanks_around_a_secret_are_refused_from_a_file_and_a_variable(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text(text)
    monkeypatch.setenv("LENSMITH_JWT_SECRET", text)
    for file in (tmp_path / "secret", None):
        with pytest.raises(SettingsError) as caught:
            token_secrets(file)
        assert CURRENT not in str(caught.value)


def test_a_secret_in_utf_16_is_refused_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(CURRENT, encoding="utf-16")
    with pytest.raises(SettingsError, match="UTF-16"):
        token_secrets(tmp_path / "secret")


@pytest.mark.parametrize("name", ["LENSMITH_REDIS_PASSWORD", "LENSMITH_REDIS_PASSWORD_FILE"])
@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_password_is_none_at_all(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        redis_password()


def test_a_password_is_the_same_from_a_variable_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("pass word\r\n")
    monkeypatch.setenv("LENSMITH_REDIS_PASSWORD_FILE", f"{tmp_path / 'password'}\n")
    assert redis_password() == "pass word"
    monkeypatch.setenv("LENSMITH_REDIS_PASSWORD", "pass word\n")
    with pytest.raises(SettingsError, match="both set"):
        redis_password()
    monkeypatch.delenv("LENSMITH_REDIS_PASSWORD_FILE")
    assert redis_password() == "pass word"
    for quote in "\"'":
        monkeypatch.setenv("LENSMITH_REDIS_PASSWORD", f"{quote}pass word{quote}")
        with pytest.raises(SettingsError, match="quotation marks"):
            redis_password()
        monkeypatch.setenv("LENSMITH_JWT_SECRET", quote + "x" * 40 + quote)
        with pytest.raises(SettingsError, match="quotation marks"):
            token_secrets()
    (tmp_path / "env").write_text("LENSMITH_JWT_SECRET=" + "x" * 40)
    with pytest.raises(SettingsError, match="name of a variable"):
        token_secrets(tmp_path / "env")
    monkeypatch.setenv("LENSMITH_REDIS_PASSWORD", " pass word")
    with pytest.raises(SettingsError, match="blanks"):
        redis_password()


@pytest.mark.parametrize("content", [b"\xff" + b"x" * 40, "ü".encode() * 20, b"x" * 40 + b"\n\xef\xbb\xbf" + b"y" * 40])
def test_a_variable_and_a_file_with_the_same_bytes_hold_the_same_secrets(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("LENSMITH_JWT_SECRET", os.fsdecode(content))
    assert token_secrets() == token_secrets(tmp_path / "secret")
    assert token_secrets() == tuple(line.removeprefix(b"\xef\xbb\xbf") for line in content.splitlines())


@pytest.mark.parametrize("blank", ["\u00a0", "\u200b", "\ufeff", " ", "\t"])
def test_an_invisible_end_of_a_secret_is_refused(blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", "x" * 40 + blank)
    with pytest.raises(SettingsError, match="blanks"):
        token_secrets()


@pytest.mark.parametrize("password", [b"\xff\xfe", b"\xe2\x80\x8b", b"\n"])
def test_a_password_that_is_no_text_is_refused_wherever_it_stands(
    password: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_bytes(password)
    monkeypatch.setenv("LENSMITH_REDIS_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(SettingsError, match="password as text"):
        redis_password()
    monkeypatch.delenv("LENSMITH_REDIS_PASSWORD_FILE")
    monkeypatch.setenv("LENSMITH_REDIS_PASSWORD", os.fsdecode(password))
    with pytest.raises(SettingsError, match="password as text"):
        redis_password()
