"""`lensmith token` as a user calls it, and whether the service takes what it makes."""

import asyncio
import json
import re
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)  # fmt: skip

import lensmith
from fixtures.command_line import Run
from lensmith.config import ServeSettings, TokenSettings
from lensmith.serving.auth.jwt import Authenticator, Caller

SECRET = "an example of forty characters, no secret"
KEYS = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1())}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LENSMITH_JWT_SECRET", raising=False)


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    return pem


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def caller(text: str, **settings: Any) -> Caller:
    authenticator = Authenticator.of(ServeSettings(bundle="x", **settings))
    assert authenticator is not None
    return asyncio.run(authenticator.authenticate([(b"authorization", f"Bearer {text}".encode())]))


@pytest.fixture(scope="module")
def unusable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of secrets and keys that sign no token."""
    folder = tmp_path_factory.mktemp("unusable")
    (folder / "short").write_text("short-secret")
    (folder / "locked.pem").write_bytes(private_pem(KEYS["ES256"], b"password"))
    (folder / "public.pem").write_bytes(public_pem(KEYS["ES256"]))
    (folder / "small.pem").write_bytes(private_pem(rsa.generate_private_key(65537, 1024)))
    (folder / "curve.pem").write_bytes(private_pem(ec.generate_private_key(ec.SECP384R1())))
    return folder


def claims(text: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
    return found


def test_only_the_token_is_on_standard_output_and_the_service_takes_it(run: Run) -> None:
    code, printed, said = run("token", "robot", "--secret-file", "secret")
    assert code == 0
    assert printed.count("\n") == 1
    assert caller(printed.strip(), jwt_secret_file="secret") == Caller("robot", frozenset({"predict"}))
    assert "a new secret is in secret" in said
    assert "robot may predict until" in said
    assert printed.strip() not in said


def test_a_new_secret_is_random_and_nobody_elses(run: Run) -> None:
    for name in ("one", "two"):
        assert run("token", "robot", "--secret-file", name)[0] == 0
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    one, two = Path("one").read_text(), Path("two").read_text()
    assert one != two
    assert len(one.strip()) == len(two.strip()) == 43  # 256 bits


def test_the_secret_may_be_in_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
    code, printed, _ = run("token", "robot", "--scopes", "predict,admin")
    assert code == 0
    assert caller(printed.strip()) == Caller("robot", frozenset({"predict", "admin"}))
    assert list(Path().iterdir()) == []


def test_a_file_that_is_named_goes_over_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", "another example of forty characters, too")
    Path("secret").write_text(SECRET)
    _, printed, said = run("token", "robot", "--secret-file", "secret")
    assert jwt.decode(printed.strip(), SECRET, ["HS256"], audience="lensmith")["sub"] == "robot"
    assert Path("secret").read_text() == SECRET
    assert "new secret" not in said


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_private_key_signs_what_its_public_key_checks(run: Run, algorithm: str) -> None:
    Path("private.pem").write_bytes(private_pem(KEYS[algorithm]))
    Path("public.pem").write_bytes(public_pem(KEYS[algorithm]))
    code, printed, said = run("token", "robot", "--key-file", "private.pem", "--kid", "2026-11")
    assert code == 0
    assert algorithm in said
    assert jwt.get_unverified_header(printed.strip()) == {"alg": algorithm, "typ": "JWT", "kid": "2026-11"}
    assert caller(printed.strip(), jwt_key_file="public.pem").subject == "robot"


@pytest.mark.parametrize(("written", "seconds"), [(None, 2_592_000), ("1d12h", 129_600), ("600s", 600)])
def test_a_token_expires_as_asked_by_default_in_thirty_days(run: Run, written: str | None, seconds: int) -> None:
    flags = ["--expires", written] if written else []
    found = claims(run("token", "robot", "--secret-file", "secret", *flags)[1].strip())
    assert found["exp"] - found["iat"] == seconds
    assert set(found) == {"iss", "aud", "sub", "scope", "iat", "exp", "jti"}


def test_issuer_and_audience_are_as_the_service_wants_them(run: Run) -> None:
    printed = run("token", "robot", "--secret-file", "secret", "--issuer", "us", "--audience", "cats")[1]
    assert caller(printed.strip(), jwt_secret_file="secret", jwt_issuer="us", jwt_audience="cats").subject == "robot"


def test_as_json_it_says_what_the_token_says(run: Run) -> None:
    code, printed, _ = run("token", "robot", "--secret-file", "secret", "--scopes", "admin", "--json")
    found = json.loads(printed)
    assert code == 0
    expires = datetime.fromisoformat(found.pop("expires"))
    assert expires == datetime.fromtimestamp(claims(found.pop("token"))["exp"], UTC)
    assert expires - datetime.now(UTC) < timedelta(days=31)
    assert found == {
        "subject": "robot", "scopes": ["admin"], "issuer": "lensmith", "audience": "lensmith", "algorithm": "HS256",
        "kid": None,
    }  # fmt: skip


def test_it_is_a_function_too() -> None:
    made = lensmith.token("robot", secret_file="secret", scopes=("predict", "admin"), expires=60)
    assert made.scopes == ("predict", "admin")
    assert caller(made.text, jwt_secret_file="secret").subject == "robot"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["robot"], "LENSMITH_JWT_SECRET"),
        (["robot", "--secret-file", "a", "--key-file", "b"], "two ways to sign"),
        (["robot", "--secret-file", "no/such/folder/secret"], "No such file"),
        (["robot", "--secret-file", "short"], "at least 32 bytes"),
        (["robot", "--key-file", "nowhere"], "nowhere"),
        (["robot", "--key-file", "locked.pem"], "without a password"),
        (["robot", "--key-file", "public.pem"], "private key"),
        (["robot", "--key-file", "small.pem"], "2048"),
        (["robot", "--key-file", "curve.pem"], "P-256"),
        (["robot", "--key-file", "short"], "private key"),
        (["a robot", "--secret-file", "a"], "subject"),
        (["x" * 257, "--secret-file", "a"], "subject"),
        (["robot", "--secret-file", "a", "--issuer", ""], "issuer"),
        (["robot", "--secret-file", "a", "--scopes", "root"], "'predict' or 'admin'"),
        (["robot", "--secret-file", "a", "--scopes", ","], "names with a comma"),
        (["robot", "--secret-file", "a", "--expires", "0"], "greater than 0"),
        (["robot", "--secret-file", "a", "--expires", "367d"], "expires"),
        (["robot", "--secret-file", "a", "--expires", "never"], "expires"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value)[:60],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing_behind(
    run: Run, unusable: Path, args: list[str], said: str
) -> None:
    shutil.copytree(unusable, ".", dirs_exist_ok=True)
    before = set(Path().iterdir())
    code, printed, error = run("token", *args)
    assert (code, printed) == (2, "")
    assert said in error
    assert "short-secret" not in error
    assert set(Path().iterdir()) == before


def test_a_secret_cannot_be_said_on_the_command_line() -> None:
    names = {*TokenSettings.model_fields, *ServeSettings.model_fields}
    assert not {name for name in names if "secret" in name or "password" in name} - {"secret_file", "jwt_secret_file"}


def test_a_secret_in_the_settings_file_is_refused_and_not_repeated(run: Run) -> None:
    Path("lensmith.yaml").write_text(f"token: {{secret: {SECRET!r}}}\n")
    code, _, error = run("token", "robot", "--secret-file", "secret")
    assert code == 2
    assert "secret is no setting" in error
    assert SECRET not in error


def test_making_a_token_loads_no_web_framework_and_no_runtime(tmp_path: Path) -> None:
    code = """
import sys, lensmith
lensmith.token("robot", secret_file="secret")
print(*sorted({"fastapi", "starlette", "torch", "onnxruntime", "limits"} & sys.modules.keys()))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout == "\n"


def test_the_key_set_that_the_documentation_makes_checks_tokens(run: Run) -> None:
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    Path("public.pem").write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))
    Path("next.pem").write_bytes(public_pem(KEYS["ES256"]))
    Path("next-private.pem").write_bytes(private_pem(KEYS["ES256"]))
    subprocess.run([sys.executable, "-c", program], check=True)
    printed = run("token", "robot", "--key-file", "next-private.pem", "--kid", "2026-12")[1]
    assert caller(printed.strip(), jwks="keys.json").subject == "robot"
