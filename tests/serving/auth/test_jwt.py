"""Who is let in: tokens that are valid, and every way known to forge one."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lensmith.config import ServeSettings
from lensmith.errors import ServiceError, SettingsError
from lensmith.serving.auth import jwt as auth
from lensmith.serving.auth import keys
from lensmith.serving.auth.jwt import Authenticator, Caller, refuse_open_door
from lensmith.serving.problems import ProblemError

Headers = list[tuple[bytes, bytes]]

SECRET = "an example of forty characters, no secret"
NOW = int(time.time())
CLAIMS = {
    "iss": "lensmith", "aud": "lensmith", "sub": "robot", "scope": "predict", "iat": NOW, "exp": NOW + 3600,
}  # fmt: skip
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER_EC = ec.generate_private_key(ec.SECP256R1())


def b64(data: bytes | str | dict[str, Any]) -> str:
    raw = json.dumps(data).encode() if isinstance(data, dict) else data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(message: str, secret: bytes | str = SECRET) -> bytes:
    return hmac.new(secret.encode() if isinstance(secret, str) else secret, message.encode(), hashlib.sha256).digest()


def rs256(message: str, key: rsa.RSAPrivateKey = RSA) -> bytes:
    return key.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())


def es256(message: str, key: ec.EllipticCurvePrivateKey = EC) -> bytes:
    r, s = decode_dss_signature(key.sign(message.encode(), ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def token(
    claims: dict[str, Any] | str | None = None,
    sign: Callable[[str], bytes] = hs256,
    header: dict[str, Any] | str | None = None,
    **changed: Any,
) -> str:
    """A token made by hand, so that nothing refuses to make it. A claim that is changed to None is left out."""
    if claims is None:
        claims = {name: value for name, value in {**CLAIMS, **changed}.items() if value is not None}
    message = f"{b64(header or {'alg': 'HS256', 'typ': 'JWT'})}.{b64(claims)}"
    return f"{message}.{b64(sign(message))}"


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def jwk(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **({"kid": kid} if kid else {}), **more}


def bearer(token: str | bytes) -> Headers:
    return [
        (b"host", b"here"),
        (b"authorization", b"Bearer " + (token if isinstance(token, bytes) else token.encode())),
    ]


def ask(authenticator: Authenticator, headers: Headers) -> Caller:
    return asyncio.run(authenticator.authenticate(headers))


def refused(authenticator: Authenticator, headers: Headers) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        ask(authenticator, headers)
    return caught.value


@pytest.fixture(autouse=True)
def _no_secret_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSMITH_JWT_SECRET", raising=False)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Authenticator]:
    """An authenticator from the contents of files."""

    def of(**contents: bytes | str | dict[str, Any]) -> Authenticator:
        named = {}
        for name, content in contents.items():
            file = tmp_path / name
            text = json.dumps(content) if isinstance(content, dict) else content
            file.write_bytes(text.encode() if isinstance(text, str) else text)
            named[name] = str(file)
        made = Authenticator.of(ServeSettings(bundle="x", **named))
        assert made is not None
        return made

    return of


@pytest.fixture
def with_secret(make: Callable[..., Authenticator]) -> Authenticator:
    return make(jwt_secret_file=SECRET)


# Who is let in


def test_nothing_configured_means_no_authentication() -> None:
    assert Authenticator.of(ServeSettings(bundle="x")) is None


def test_a_token_signed_with_the_secret_is_its_subject_with_its_scopes(with_secret: Authenticator) -> None:
    assert ask(with_secret, bearer(token(scope="predict admin"))) == Caller("robot", frozenset({"predict", "admin"}))


def test_the_secret_may_come_from_the_environment_and_end_with_a_line(
    make: Callable[..., Authenticator], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(make(jwt_secret_file=SECRET + "\n"), bearer(token())).subject == "robot"
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
    authenticator = Authenticator.of(ServeSettings(bundle="x"))
    assert authenticator is not None
    assert ask(authenticator, bearer(token())).subject == "robot"


@pytest.mark.parametrize(("alg", "key", "sign"), [("RS256", RSA, rs256), ("ES256", EC, es256)])
def test_a_token_signed_with_the_private_key_is_let_in_by_the_public_one(
    make: Callable[..., Authenticator], alg: str, key: Any, sign: Callable[[str], bytes]
) -> None:
    authenticator = make(jwt_key_file=pem(key))
    assert ask(authenticator, bearer(token(sign=sign, header={"alg": alg}))).subject == "robot"
    assert ask(authenticator, bearer(jwt.encode(CLAIMS, key, alg))).subject == "robot"


GOOD = {
    "one audience among others": token(aud=["other", "lensmith"]),
    "no iat": token(iat=None),
    "no scope": token(scope=None),
    "fractions of seconds": token(exp=NOW + 3600.5, iat=NOW - 0.5),
    "valid since now": token(nbf=NOW),
    "a clock a little ahead": token(iat=NOW + 5, nbf=NOW + 5),
    "a clock a little behind": token(exp=NOW + 3600 - 3605),
    "claims we do not know": token(jti="a", roles=["x"], extra={"deep": [1]}),
    "a subject in other letters": token(sub="Zoë 机器人"),
    "a kid that a single secret ignores": token(header={"alg": "HS256", "kid": "any"}),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_what_the_standard_allows_is_let_in(
    with_secret: Authenticator, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text == GOOD["a clock a little behind"]:  # the clock must not run while the test waits for a core
        monkeypatch.setattr(auth, "LEEWAY_S", 300)
    assert ask(with_secret, bearer(text)).subject


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_the_scheme_is_read_in_any_case(with_secret: Authenticator, scheme: bytes) -> None:
    assert ask(with_secret, [(b"authorization", scheme + b" " + token().encode())]).subject == "robot"


# Who is not


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def crit(names: Any, **more: Any) -> str:
    return token(header={"alg": "HS256", "crit": names, **more})


FORGED: dict[str, str | bytes] = {
    # no signature
    **{f"alg {alg!r}": token(sign=lambda _: b"", header={"alg": alg}) for alg in ("none", "None", "NONE", "nOnE")},
    "alg none, signed": token(header={"alg": "none"}),
    "alg empty": token(header={"alg": ""}),
    "alg null": token(header={"alg": None}),
    "alg missing": token(header={"typ": "JWT"}),
    "alg a list": token(header={"alg": ["HS256"]}),
    "alg an object": token(header={"alg": {"HS256": 1}}),
    "alg in small letters": token(header={"alg": "hs256"}),
    "alg with a space": token(header={"alg": "HS256 "}),
    "alg HS384 with our secret": token(
        sign=lambda m: hmac.new(SECRET.encode(), m.encode(), hashlib.sha384).digest(), header={"alg": "HS384"}
    ),
    "alg RS256 where a secret is configured": token(sign=rs256, header={"alg": "RS256"}),
    "alg ES256 where a secret is configured": token(sign=es256, header={"alg": "ES256"}),
    "alg EdDSA": token(header={"alg": "EdDSA"}),
    "alg twice, none last": token(header='{"alg":"HS256","alg":"none"}', sign=lambda _: b"x"),
    # another's signature
    "another secret": token(sign=lambda m: hs256(m, "x" * 32)),
    "an empty secret": token(sign=lambda m: hs256(m, b"")),
    "signature of another message": token().rpartition(".")[0] + "." + token(sub="admin").rpartition(".")[2],
    "claims changed": ".".join([token().split(".")[0], b64({**CLAIMS, "sub": "admin"}), token().split(".")[2]]),
    "signature cut": token()[:-4],
    "signature cut to one byte": token(sign=lambda m: hs256(m)[:1]),
    "signature longer": token(sign=lambda m: hs256(m) + b"\0"),
    "signature empty": token(sign=lambda _: b""),
    "signature in hex": token().rpartition(".")[0] + "." + hs256(token().rpartition(".")[0]).hex(),
    "last character with idle bits": token()[:-1] + chr(ord(token()[-1]) + 1),
    # keys that the token brings or names
    "jku": token(sign=lambda m: hs256(m, "x" * 32), header={"alg": "HS256", "jku": "http://127.0.0.1:1/keys"}),
    "x5u": token(sign=rs256, header={"alg": "RS256", "x5u": "http://127.0.0.1:1/cert"}),
    "x5c": token(sign=rs256, header={"alg": "RS256", "x5c": [b64(pem(RSA))]}),
    "jwk, public": token(sign=rs256, header={"alg": "RS256", "jwk": jwk(RSA, "a")}),
    "jwk, symmetric": token(
        sign=lambda m: hs256(m, "x" * 32), header={"alg": "HS256", "jwk": {"kty": "oct", "k": b64("x" * 32)}}
    ),
    "kid of a file": token(sign=lambda m: hs256(m, b""), header={"alg": "HS256", "kid": "../../../dev/null"}),
    "kid of a query": token(sign=lambda m: hs256(m, "x"), header={"alg": "HS256", "kid": "' UNION SELECT 'x'--"}),
    "kid a number": token(header={"alg": "HS256", "kid": 1}),
    "kid a list": token(header={"alg": "HS256", "kid": []}),
    # extensions that must be understood
    "crit of something unknown": crit(["exp"], exp=NOW),
    "crit empty": crit([]),
    "crit no list": crit("b64", b64=True),
    "crit of numbers": crit([1]),
    "b64 false": crit(["b64"], b64=False),
    # claims
    **{f"{name} missing": token(**{name: None}) for name in ("iss", "aud", "sub", "exp")},
    **{f"{name} null": token({**CLAIMS, name: None}) for name in ("iss", "aud", "sub", "exp")},
    "issuer of others": token(iss="others"),
    "issuer longer than ours": token(iss="lensmith2"),
    "issuer a list": token(iss=["lensmith"]),
    "audience of others": token(aud="others"),
    "audience in capitals": token(aud="LENSMITH"),
    "audience within a text": token(aud="a lensmith b"),
    "audience empty": token(aud=[]),
    "audience an object": token(aud={"lensmith": 1}),
    "audience with a number": token(aud=["lensmith", 1]),
    "audience nested": token(aud=[["lensmith"]]),
    "subject empty": token(sub=""),
    "subject a number": token(sub=7),
    "subject true": token(sub=True),
    "subject a list": token(sub=["robot"]),
    "subject an object": token(sub={"robot": 1}),
    "subject with a line break": token(sub="robot\nadmin"),
    "subject with a zero": token(sub="robot\0"),
    "subject too long": token(sub="a" * 257),
    "scope a list": token(scope=["predict"]),
    "scope a number": token(scope=1),
    "expired": token(exp=NOW - 3600),
    "expired in 1970": token(exp=0),
    "expires before 1970": token(exp=-1),
    "expires as text": token(exp=str(NOW + 3600)),
    "expires as a text of a fraction": token(exp=f"{NOW + 3600}.5"),
    "expires true": token(exp=True),
    "expires never": token(exp="never"),
    "expires as a list": token(exp=[NOW + 3600]),
    "expires NaN": token(json.dumps(CLAIMS).replace(f'"exp": {CLAIMS["exp"]}', '"exp": NaN')),
    "expires at infinity": token(json.dumps(CLAIMS).replace(f'"exp": {CLAIMS["exp"]}', '"exp": Infinity')),
    "expires at 1e999": token(json.dumps(CLAIMS).replace(f'"exp": {CLAIMS["exp"]}', '"exp": 1e999')),
    "expires at 1e300": token(json.dumps(CLAIMS).replace(f'"exp": {CLAIMS["exp"]}', '"exp": 1e300')),
    "expires at 5000 digits": token(json.dumps(CLAIMS).replace(f'"exp": {CLAIMS["exp"]}', f'"exp": {"9" * 5000}')),
    "expires after the year 9999": token(exp=253_402_300_800),
    "expires twice, the last in the past": token(json.dumps(CLAIMS)[:-1] + ', "exp": 1}'),
    "not yet valid": token(nbf=NOW + 3600),
    "not before as text": token(nbf="0"),
    "not before null": token({**CLAIMS, "nbf": None}),
    "issued in the future": token(iat=NOW + 3600),
    "issued as text": token(iat=str(NOW)),
    "issued null": token({**CLAIMS, "iat": None}),
    # not a token at all
    "empty": "",
    "blank": " ",
    "dots": "..",
    "one part": "abc",
    "two parts": ".".join(token().split(".")[:2]),
    "four parts": token() + ".abc",
    "five parts, as if encrypted": token() + ".abc.abc",
    "two tokens": f"{token()} {token()}",
    "two tokens with a comma": f"{token()},{token()}",
    "a space before": " " + token(),
    "a space after": token() + " ",
    "a tab after": token() + "\t",
    "padding": token(sign=lambda m: hs256(m)) + "=",
    "padding of the header": token().replace(".", "=.", 1),
    "the other alphabet": token(sub="???>>>~~~").replace("-", "+").replace("_", "/"),
    "a stray character": token()[:-1] + "!",
    "bytes beyond ASCII": token().encode() + b"\xff",
    "letters beyond ASCII": token() + "é",
    "a zero": token() + "\0",
    "header no JSON": token(header="{"),
    "header a list": token(header="[]"),
    "header a number": token(header="1"),
    "header not UTF-8": f"{b64(bytes([0xFF, 0xFE]))}.{b64(CLAIMS)}.{b64('x')}",
    "header nested deeply": token(header=nested(2800)),
    "claims no JSON": token("{"),
    "claims a list": token("[]"),
    "claims a text": token('"robot"'),
    "claims nested deeply": token(nested(2500)),
    "9 kB": token(extra="x" * 9000),
    "9 kB of nothing": "a" * 9000,
    "9 kB of dots": "." * 9000,
}  # fmt: skip


def plain(problem: ProblemError) -> tuple[Any, ...]:
    return problem.status, problem.kind, problem.detail, dict(problem.headers or {})


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token_is_refused_in_the_same_words_as_any_other(
    with_secret: Authenticator, text: str | bytes
) -> None:
    found = plain(refused(with_secret, bearer(text)))
    assert found[:2] == (401, "unauthenticated")
    assert found == plain(refused(with_secret, bearer("a.b.c")))
    assert found[3] == {"www-authenticate": 'Bearer realm="lensmith", error="invalid_token"'}


HEADERS = {
    "twice": [(b"authorization", b"Bearer " + token().encode())] * 2,
    "first good, then none": [(b"authorization", b"Bearer " + token().encode()), (b"authorization", b"")],
    "Basic": [(b"authorization", b"Basic cm9ib3Q6cm9ib3Q=")],
    "Token": [(b"authorization", b"Token " + token().encode())],
    "no scheme": [(b"authorization", token().encode())],
    "scheme alone": [(b"authorization", b"Bearer")],
    "two spaces": [(b"authorization", b"Bearer  " + token().encode())],
    "a tab": [(b"authorization", b"Bearer\t" + token().encode())],
    "empty": [(b"authorization", b"")],
    "bytes": [(b"authorization", b"\xff\xfe\x00")],
    "Basic, then Bearer": [(b"authorization", b"Basic eA=="), (b"authorization", b"Bearer " + token().encode())],
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS.keys())
def test_exactly_one_header_of_the_right_scheme_is_needed(with_secret: Authenticator, headers: Headers) -> None:
    assert plain(refused(with_secret, headers)) == plain(refused(with_secret, bearer("a.b.c")))


def test_without_any_header_the_answer_says_what_is_needed(with_secret: Authenticator) -> None:
    problem = refused(with_secret, [(b"cookie", b"authorization=x"), (b"proxy-authorization", b"Bearer x")])
    assert (problem.status, problem.headers) == (401, {"www-authenticate": 'Bearer realm="lensmith"'})
    assert "Authorization: Bearer" in problem.detail


CONFUSED = [
    (name, key, alg, form)
    for name, key in (("RSA", RSA), ("EC", EC))
    for alg in ("HS256", "RS256", "ES256", "none")
    for form in ("pem", "pem without line", "der", "jwk")
]


@pytest.mark.parametrize(
    ("name", "key", "alg", "form"), CONFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_public_key_is_no_secret_to_sign_with(
    make: Callable[..., Authenticator], name: str, key: Any, alg: str, form: str
) -> None:
    secrets = {
        "pem": pem(key),
        "pem without line": pem(key).rstrip(),
        "der": key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(jwk(key, "a")).encode(),
    }
    forged = token(sign=lambda m: hs256(m, secrets[form]), header={"alg": alg, "kid": "a"})
    for authenticator in (make(jwt_key_file=pem(key)), make(jwks={"keys": [jwk(key, "a")]})):
        assert refused(authenticator, bearer(forged)).status == 401


def test_the_key_decides_the_algorithm(make: Callable[..., Authenticator]) -> None:
    rs, es = make(jwt_key_file=pem(RSA)), make(jwt_key_file=pem(EC))
    pss = RSA.sign(b"", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    assert refused(rs, bearer(token(sign=lambda _: pss, header={"alg": "PS256"})))
    assert refused(rs, bearer(jwt.encode(CLAIMS, RSA, "RS512")))
    assert refused(rs, bearer(jwt.encode(CLAIMS, RSA, "PS256")))
    assert refused(rs, bearer(jwt.encode(CLAIMS, OTHER_RSA, "RS256")))
    assert refused(rs, bearer(jwt.encode(CLAIMS, EC, "ES256")))
    assert refused(es, bearer(jwt.encode(CLAIMS, OTHER_EC, "ES256")))
    assert refused(es, bearer(jwt.encode(CLAIMS, RSA, "RS256")))
    assert refused(es, bearer(token(sign=lambda _: bytes(64), header={"alg": "ES256"})))  # r = s = 0
    assert refused(
        es, bearer(token(sign=lambda m: EC.sign(m.encode(), ec.ECDSA(hashes.SHA256())), header={"alg": "ES256"}))
    )


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"Bearer " + token().encode()[:-1] + b"\n")
def test_no_header_whatever_is_a_fault_of_the_service(value: bytes) -> None:
    authenticator = Authenticator(keys.OneKey(keys.secret_key(SECRET.encode())), "lensmith", "lensmith")
    for text in (value, b"Bearer " + value, b"Bearer " + b64(value).encode() + b".e30.e30"):
        refused(authenticator, [(b"authorization", text)])


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda s: st.lists(s, max_size=2)
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from([*CLAIMS, "nbf", "jti"]), JSON),
    st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ"]), JSON),
)
def test_no_signed_claim_whatever_is_a_fault_of_the_service(claims: dict[str, Any], header: dict[str, Any]) -> None:
    authenticator = Authenticator(keys.OneKey(keys.secret_key(SECRET.encode())), "lensmith", "lensmith")
    for text in (token({**CLAIMS, **claims}), token(header={"alg": "HS256", **header})):
        with contextlib.suppress(ProblemError):
            assert ask(authenticator, bearer(text)).subject


# Scopes


@pytest.mark.parametrize(
    ("scope", "predict", "admin"),
    [
        ("predict", True, False),
        ("admin", False, True),
        ("predict admin", True, True),
        ("admin openid predict", True, True),
        ("", False, False),
        ("Predict", False, False),
        ("predict,admin", False, False),
        ("predictadmin", False, False),
        ("administrator", False, False),
    ],
)
def test_neither_scope_includes_the_other(with_secret: Authenticator, scope: str, predict: bool, admin: bool) -> None:
    caller = ask(with_secret, bearer(token(scope=scope)))
    for name, allowed in (("predict", predict), ("admin", admin)):
        if allowed:
            caller.require(name)
            continue
        with pytest.raises(ProblemError) as caught:
            caller.require(name)
        assert caught.value.status == 403
        assert caught.value.headers == {
            "www-authenticate": f'Bearer realm="lensmith", error="insufficient_scope", scope="{name}"'
        }


# What is remembered


def test_a_known_token_is_not_checked_again(with_secret: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    text = token()
    first = ask(with_secret, bearer(text))
    monkeypatch.setattr(auth.jwt, "decode", None)
    assert ask(with_secret, bearer(text)) is first


def test_a_known_token_ends_when_it_expires(with_secret: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    text = token()
    assert ask(with_secret, bearer(text))
    monkeypatch.setattr(auth.time, "time", lambda: float(CLAIMS["exp"] + auth.LEEWAY_S))
    assert plain(refused(with_secret, bearer(text))) == plain(refused(with_secret, bearer("a.b.c")))


def test_a_known_token_does_not_help_one_that_resembles_it(with_secret: Authenticator) -> None:
    text = token()
    assert ask(with_secret, bearer(text))
    assert refused(with_secret, bearer(text[:-2] + ("AA" if text[-2:] != "AA" else "BB")))


def test_a_forged_token_is_not_remembered_and_known_ones_are_bounded(
    with_secret: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "REMEMBERED", 3)
    for number in range(5):
        ask(with_secret, bearer(token(sub=f"robot {number}")))
        refused(with_secret, bearer(token(sub=f"robot {number}", sign=lambda _: b"x")))
    assert [caller.subject for caller, _ in with_secret._checked.values()] == ["robot 2", "robot 3", "robot 4"]


# Nothing leaks


def test_a_reason_is_logged_once_in_a_while_and_never_with_the_token(
    with_secret: Authenticator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    forged = [token(sub=f"robot-{number}", exp=NOW - 3600) for number in range(5)]
    for text in forged:
        refused(with_secret, bearer(text))
    refused(with_secret, bearer(token(aud="others")))
    lines = [record.getMessage() for record in caplog.records if record.name == "lensmith.serving.auth.jwt"]
    assert [line.partition(" (")[0] for line in lines] == [
        "a token was refused: ExpiredSignatureError",
        "a token was refused: InvalidAudienceError",
    ]
    assert not any(part in caplog.text for text in forged for part in text.split("."))


@pytest.mark.parametrize("content", ["", "short-secret", "x" * 31, "x" * 31 + "\n\n"])
def test_a_short_secret_is_refused_without_being_said(make: Callable[..., Authenticator], content: str) -> None:
    with pytest.raises(SettingsError, match="at least 32 bytes") as caught:
        make(jwt_secret_file=content)
    assert not content.strip() or content.strip() not in str(caught.value)


@pytest.mark.parametrize("value", ["", "short-secret"])
def test_a_variable_that_is_set_and_useless_does_not_open_the_door(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", value)
    with pytest.raises(SettingsError, match="LENSMITH_JWT_SECRET"):
        Authenticator.of(ServeSettings(bundle="x"))


@pytest.mark.parametrize(
    "content",
    [pem(RSA), pem(EC), private_pem(RSA), json.dumps(jwk(EC, "a")).encode()],
    ids=["RSA", "EC", "private", "JWK"],
)
def test_a_key_is_no_secret(make: Callable[..., Authenticator], content: bytes) -> None:
    with pytest.raises(SettingsError, match="random secret"):
        make(jwt_secret_file=content)


WRONG_KEYS = {
    "private RSA": private_pem(RSA),
    "private EC": private_pem(EC),
    "short RSA": pem(rsa.generate_private_key(65537, 1024)),
    "another curve": pem(ec.generate_private_key(ec.SECP384R1())),
    "Ed25519": pem(ed25519.Ed25519PrivateKey.generate()),
    "text": b"x" * 40,
    "empty": b"",
    "a public key after junk": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "huge": b"x" * 70_000,
}


@pytest.mark.parametrize("content", WRONG_KEYS.values(), ids=WRONG_KEYS.keys())
def test_a_file_without_a_usable_public_key_is_refused(make: Callable[..., Authenticator], content: bytes) -> None:
    with pytest.raises(SettingsError) as caught:
        make(jwt_key_file=content)
    assert content.decode().strip() not in str(caught.value) or not content


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    for name in ("jwt_secret_file", "jwt_key_file", "jwks"):
        with pytest.raises(SettingsError, match="nowhere"):
            Authenticator.of(ServeSettings(bundle="x", **{name: str(tmp_path / "nowhere")}))


def test_two_ways_to_check_tokens_are_one_too_many(
    make: Callable[..., Authenticator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
    with pytest.raises(SettingsError, match="One way"):
        make(jwt_key_file=pem(RSA))
    with pytest.raises(SettingsError, match="One way"):
        make(jwks={"keys": [jwk(RSA, "a")]})
    with pytest.raises(ValueError, match="three ways"):
        ServeSettings(bundle="x", jwt_key_file="a", jwks="b")


# Key sets


def signed(key: Any, kid: str | None, **claims: Any) -> Headers:
    alg = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    return bearer(jwt.encode({**CLAIMS, **claims}, key, alg, {"kid": kid} if kid else None))


def test_each_key_of_a_set_checks_the_tokens_that_name_it(make: Callable[..., Authenticator]) -> None:
    authenticator = make(jwks={"keys": [jwk(RSA, "a"), jwk(EC, "b", use="sig", alg="ES256")]})
    assert ask(authenticator, signed(RSA, "a")).subject == "robot"
    assert ask(authenticator, signed(EC, "b")).subject == "robot"
    for key, kid in (
        (RSA, "b"),
        (EC, "a"),
        (OTHER_RSA, "a"),
        (RSA, "c"),
        (RSA, None),
        (RSA, "../a"),
        (RSA, "a' OR 1=1--"),
    ):
        assert refused(authenticator, signed(key, kid)).status == 401


def test_the_only_key_of_a_set_needs_no_name(make: Callable[..., Authenticator]) -> None:
    for authenticator in (make(jwks={"keys": [jwk(RSA, "a")]}), make(jwks={"keys": [jwk(RSA, None)]})):
        assert ask(authenticator, signed(RSA, None)).subject == "robot"
        assert refused(authenticator, signed(OTHER_RSA, None))


SYMMETRIC = {"kty": "oct", "k": b64(SECRET), "kid": "a", "alg": "HS256"}


LEFT_OUT = {
    "symmetric": SYMMETRIC,
    "for encryption": jwk(RSA, "a", use="enc"),
    "for PS256": jwk(RSA, "a", alg="PS256"),
    "RSA for HS256": jwk(RSA, "a", alg="HS256"),
    "short": jwk(rsa.generate_private_key(65537, 1024), "a"),
    "another curve": jwk(ec.generate_private_key(ec.SECP384R1()), "a"),
    "private RSA": {**jwt.algorithms.RSAAlgorithm.to_jwk(RSA, as_dict=True), "kid": "a"},
    "private EC": {**jwt.algorithms.ECAlgorithm.to_jwk(EC, as_dict=True), "kid": "a"},
    "a list for a name": {**jwk(RSA, None), "kid": [1]},
    "RSA without a number": {"kty": "RSA", "kid": "a"},
    "no type": {"kid": "a"},
    "empty": {},
    "a text": "a",
}


@pytest.mark.parametrize("unusable", LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_keys_of_a_set_that_are_not_public_rsa_or_p256_keys_are_left_out(
    make: Callable[..., Authenticator], unusable: Any
) -> None:
    authenticator = make(jwks={"keys": [unusable, jwk(OTHER_RSA, "good")]})
    assert ask(authenticator, signed(OTHER_RSA, "good"))
    assert refused(authenticator, signed(RSA, "a"))
    assert refused(authenticator, bearer(token(header={"alg": "HS256", "kid": "a"})))
    with pytest.raises(SettingsError, match="It holds none"):
        make(jwks={"keys": [unusable]})


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"keys": {}}', '{"keys": "a"}', '{"keys": []}', '{"other": 1}']
)
def test_a_file_that_is_no_key_set_is_refused(make: Callable[..., Authenticator], content: str) -> None:
    with pytest.raises(SettingsError, match="It holds none"):
        make(jwks=content)


class Served:
    """A server of a key set that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: tuple[int, bytes, dict[str, str]] = (200, b"", {})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                status, content, headers = outer.answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def hold(self, *listed: dict[str, Any]) -> None:
        self.answer = (200, json.dumps({"keys": listed}).encode(), {})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(keys, "FETCH_TIMEOUT_S", 60.0)  # on a busy machine it answers late
    server = Served()
    try:
        yield server
    finally:
        server.close()


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class _Modules:
    """Stands in for `time` in one module, so that the event loop keeps the true one."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.time = time.time


@pytest.fixture
def keys_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keys, "time", _Modules(clock))
    return clock


def of_url(url: str) -> Authenticator:
    authenticator = Authenticator.of(ServeSettings(bundle="x", jwks=url))
    assert authenticator is not None
    return authenticator


def test_a_new_key_is_fetched_when_a_token_names_it_and_not_more_often_than_that(
    served: Served, keys_clock: Clock
) -> None:
    served.hold(jwk(RSA, "old"))
    authenticator = of_url(served.url)

    async def rotate() -> None:
        assert await authenticator.authenticate(signed(RSA, "old"))
        assert served.asked == 1
        served.hold(jwk(RSA, "old"), jwk(EC, "new"))
        assert await authenticator.authenticate(signed(EC, "new"))
        assert served.asked == 2
        for number in range(20):  # names that are made up cost one request in ten seconds
            with pytest.raises(ProblemError):
                await authenticator.authenticate(signed(EC, f"made up {number}"))
        assert served.asked == 2
        keys_clock.now += keys.COOLDOWN_S
        await asyncio.gather(
            *(authenticator.authenticate(signed(EC, f"made up {number}")) for number in range(20)),
            return_exceptions=True,
        )
        assert served.asked == 3

    asyncio.run(rotate())


def test_a_key_that_is_taken_out_is_refused_after_the_next_reading_even_for_known_tokens(
    served: Served, keys_clock: Clock
) -> None:
    served.hold(jwk(RSA, "old"), jwk(EC, "new"))
    authenticator = of_url(served.url)

    async def revoke() -> None:
        known = signed(RSA, "old")
        assert await authenticator.authenticate(known)
        served.hold(jwk(EC, "new"))
        assert await authenticator.authenticate(known)
        keys_clock.now += keys.REFRESH_S
        assert await authenticator.authenticate(known)  # which begins to read, and does not wait
        assert authenticator._keys._reading is not None  # type: ignore[union-attr]
        await authenticator._keys._reading  # type: ignore[union-attr]
        with pytest.raises(ProblemError):
            await authenticator.authenticate(known)
        assert await authenticator.authenticate(signed(EC, "new"))

    asyncio.run(revoke())


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"", {}),
        (200, b"", {}),
        (200, b'{"keys": []}', {}),
        (200, b"x" * 1_000_001, {}),
        (302, b"", {"location": "/"}),
    ],
    ids=["500", "empty", "no keys", "too large", "elsewhere"],
)
def test_a_set_that_cannot_be_read_again_leaves_the_old_keys(
    served: Served, keys_clock: Clock, answer: tuple[int, bytes, dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    served.hold(jwk(RSA, "old"))
    authenticator = of_url(served.url)

    async def outlast() -> None:
        served.answer = answer
        for pause in (keys.REFRESH_S, keys.COOLDOWN_S, keys.COOLDOWN_S):
            keys_clock.now += pause
            assert await authenticator.authenticate(signed(RSA, "old"))
            await authenticator._keys._reading  # type: ignore[union-attr, misc]
        assert served.asked == 4
        assert len(caplog.records) == 1
        assert "stay as they were" in caplog.text
        served.hold(jwk(RSA, "old"), jwk(EC, "new"))
        keys_clock.now += keys.COOLDOWN_S
        assert await authenticator.authenticate(signed(EC, "new"))
        assert "can be read again" in caplog.text

    asyncio.run(outlast())


def test_a_set_whose_server_is_gone_leaves_the_old_keys(served: Served, keys_clock: Clock) -> None:
    served.hold(jwk(RSA, "old"))
    authenticator = of_url(served.url)
    served.close()

    async def outlast() -> None:
        keys_clock.now += keys.REFRESH_S
        assert await authenticator.authenticate(signed(RSA, "old"))
        with pytest.raises(ProblemError):
            await authenticator.authenticate(signed(EC, "new"))
        assert await authenticator.authenticate(signed(RSA, "old"))

    asyncio.run(outlast())


def test_without_its_keys_the_service_does_not_start(served: Served) -> None:
    served.answer = (404, b"", {})
    with pytest.raises(SettingsError, match="404"):
        of_url(served.url)


def test_a_redirect_is_not_followed(served: Served) -> None:
    served.answer = (302, b"", {"location": served.url})
    with pytest.raises(SettingsError):
        of_url(served.url)
    assert served.asked == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org/keys", "https is needed"),
        ("http://127.0.0.1.example.org/keys", "https is needed"),
        ("http:///keys", "https is needed"),
        ("ftp://127.0.0.1/keys", "https is needed"),
        ("file:///etc/hostname", "https is needed"),
        ("data://a,{}", "https is needed"),
        ("https://me:hunter@127.0.0.1/keys", "password"),
        ("http://[", "cannot be read"),
    ],
)
def test_keys_come_over_https_or_from_this_machine(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        of_url(url)
    assert "hunter" not in str(caught.value)


def test_a_set_in_a_file_is_read_again_too(tmp_path: Path, keys_clock: Clock) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk(RSA, "old")]}))
    authenticator = of_url(str(file))
    file.write_text(json.dumps({"keys": [jwk(RSA, "old"), jwk(EC, "new")]}))
    assert ask(authenticator, signed(EC, "new")).subject == "robot"


# The door


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_this_machine_alone_no_authentication_is_needed(host: str) -> None:
    refuse_open_door(ServeSettings(bundle="x", host=host), None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "2001:db8::1", "no.such.host.invalid"])
def test_others_are_not_let_in_without_authentication_unless_that_is_said(
    host: str, with_secret: Authenticator
) -> None:
    with pytest.raises(ServiceError) as caught:
        refuse_open_door(ServeSettings(bundle="x", host=host), None)
    assert "--jwt-secret-file" in str(caught.value)
    assert "--insecure" in str(caught.value)
    refuse_open_door(ServeSettings(bundle="x", host=host, insecure=True), None)
    refuse_open_door(ServeSettings(bundle="x", host=host), with_secret)
