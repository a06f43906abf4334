"""Secrets from environment variables or files, never from the command line; weak ones are refused.

No message contains a secret, or any part of one.
"""

import os
import secrets
from pathlib import Path

from lensmith.core.text import is_blank, is_quoted, text_of_variable
from lensmith.errors import SettingsError

TOKEN_SECRET = "LENSMITH_JWT_SECRET"
"""Environment variable with the secret of HS256 tokens."""
REDIS_PASSWORD = "LENSMITH_REDIS_PASSWORD"
"""Environment variable with the password of Redis; with the suffix _FILE, the path of a file that holds it."""
MIN_SECRET_BYTES = 32
"""Size of the hash of HS256 (RFC 7518, 3.2): a shorter secret is easier to guess than the signature."""

_MAX_FILE_BYTES = 65_536


def token_secrets(file: Path | None = None) -> tuple[bytes, ...]:
    """The secrets of HS256 tokens, from `file`, else from LENSMITH_JWT_SECRET: one a line, the current one first.

    Empty lines and line ends do not count, so that a file and a variable with the same text hold the same secrets.

    Returns:
        The secrets, of which each may have signed a token; empty if neither is given.

    Raises:
        SettingsError: an unreadable file, no secret, or one that is too short, or has blanks or quotation marks
            around it.
    """
    if file is not None:
        content = read_secret(file)
    elif TOKEN_SECRET in os.environ:
        content = os.fsencode(os.environ[TOKEN_SECRET])
    else:
        return ()
    is_pem = b"-----BEGIN " in content  # one thing of several lines, which is refused as what it is
    lines = [content] if is_pem else content.splitlines()
    found = tuple(line for line in (each.removeprefix(_BOM) for each in lines) if line)
    for each in found or (b"",):
        if len(each) < MIN_SECRET_BYTES:
            raise SettingsError(
                f"A secret of at least {MIN_SECRET_BYTES} bytes was expected on each line of {file or TOKEN_SECRET}.",
                f"There are {len(each)}.",
                "`lensmith token NAME --secret-file NEW_FILE` makes a random one.",
            )
        _refuse_wrapping(each, file or TOKEN_SECRET)
    return found


def redis_password() -> str | None:
    """LENSMITH_REDIS_PASSWORD, else the content of the file that LENSMITH_REDIS_PASSWORD_FILE names, else None.

    Raises:
        SettingsError: an empty variable, or both; a file that cannot be read, is empty, or is not text; blanks or
            quotation marks around it.
    """
    source: str | Path = REDIS_PASSWORD
    password = os.environ.get(REDIS_PASSWORD)
    file = text_of_variable(f"{REDIS_PASSWORD}_FILE", "The path of a file with a password")
    if password is not None and file is not None:
        raise SettingsError(
            "One password of Redis was expected.",
            f"{REDIS_PASSWORD} and {REDIS_PASSWORD}_FILE are both set.",
            "Unset one of them.",
        )
    if file is not None:
        source = Path(file)
        try:
            password = read_secret(source).decode()
        except UnicodeDecodeError:
            password = ""
    if password is None:
        return None
    password = password.rstrip("\r\n")
    if is_blank(password) or not _is_utf8(password):
        raise SettingsError(
            f"A password as text was expected in {source}.",
            "There is none.",
            "Write it there, in UTF-8, on one line; or unset the variable.",
        )
    _refuse_wrapping(password.encode(), source)
    return password


def _is_utf8(text: str) -> bool:
    """False for a variable with other bytes, which Python keeps as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_wrapping(secret: bytes, source: object) -> None:
    """Blanks and quotation marks come from copying; whoever has the secret without them has another one."""
    text = secret.decode(errors="replace")
    ends_blank = secret != secret.strip() or any(is_blank(end) for end in (text[:1], text[-1:]))
    is_assignment = text.removeprefix("export ").startswith("LENSMITH_") and "=" in text
    if ends_blank or is_quoted(text) or is_assignment or secret.startswith(_UTF16):
        raise SettingsError(
            f"A secret without blanks or quotation marks around it was expected in {source}, in ASCII or UTF-8.",
            "It is UTF-16."
            if secret.startswith(_UTF16)
            else "The name of a variable is before it."
            if is_assignment
            else "It has some.",
            "Write the secret alone on its line.",
        )


_BOM = b"\xef\xbb\xbf"
"""What some editors put before a text."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_secret(path: Path) -> bytes:
    """The content of a file that holds a secret or key, without the line ends after it.

    Raises:
        SettingsError: a file that cannot be read, or is too large for a secret.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"A readable file with a secret or key was expected at {path}.",
            f"The system said: {error.strerror}.",
            "Check the path and the permissions.",
        ) from error
    if len(content) > _MAX_FILE_BYTES:
        raise SettingsError(
            f"A file with one secret or key was expected at {path}.",
            f"It has more than {_MAX_FILE_BYTES:,} bytes.",
            "Name the right file.",
        )
    return content.rstrip(b"\r\n")


def make_secret(path: Path) -> bool:
    """Write a random secret of 256 bits that only this user can read; False if the file exists already.

    Raises:
        SettingsError: a path that cannot be written to.
    """
    try:
        # Not an atomic write, which would replace a secret that another process has just made.
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise SettingsError(
            f"A secret was to be written to {path}.", f"The system said: {error.strerror}.", "Name another path."
        ) from error
    try:
        with os.fdopen(number, "wb") as file:
            file.write(secrets.token_urlsafe(32).encode() + b"\n")
    except OSError:
        path.unlink()  # half a secret is useless
        raise
    return True
