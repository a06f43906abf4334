"""Tokens: which ones authenticate, and which forgeries our own checks and our use of PyJWT have to refuse."""

import contextlib
import hmac
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fixtures.tokens import (
    CLAIMS,
    EC,
    NOW,
    OTHER_RSA,
    RSA,
    SECRET,
    authenticate,
    b64,
    bearer,
    hs256,
    jwk,
    pem,
    refused,
    signed,
    token,
)
from lensmith.config import ServeSettings
from lensmith.errors import ServiceError, SettingsError
from lensmith.serving.auth import jwt as auth
from lensmith.serving.auth.jwt import Authenticator, Caller, require_authentication
from lensmith.serving.auth.keys import StaticKeys, secret_key
from lensmith.serving.problems import ProblemError


@pytest.fixture
def with_secret(make_authenticator: Callable[..., Authenticator]) -> Authenticator:
    return make_authenticator(jwt_secret_file=SECRET)


# Valid tokens


def test_nothing_configured_means_no_authentication(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSMITH_JWT_SECRET", raising=False)
    assert Authenticator.of(ServeSettings(bundle="x")) is None


def test_a_token_signed_with_the_secret_is_its_subject_with_its_scopes(with_secret: Authenticator) -> None:
    caller = authenticate(with_secret, bearer(token(scope="predict admin")))
    assert caller == Caller("robot", frozenset({"predict", "admin"}))


def test_the_secret_may_come_from_the_environment_and_end_with_a_line(
    make_authenticator: Callable[..., Authenticator], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert authenticate(make_authenticator(jwt_secret_file=SECRET + "\n"), bearer(token()))
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
    authenticator = Authenticator.of(ServeSettings(bundle="x"))
    assert authenticator is not None
    assert authenticate(authenticator, bearer(token()))


@pytest.mark.parametrize(
    "text",
    [
        token(aud=["other", "lensmith"]),
        token(iat=None, scope=None),
        token(exp=NOW + 3600.5, iat=NOW - 0.5),
        token(iat=NOW + 5, nbf=NOW + 5),  # a clock a little ahead
        token(jti="a", roles=["x"], extra={"deep": [1]}),
        token(sub="Zoë 机器人"),
        token(header={"alg": "HS256", "kid": "any"}),
    ],
)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_what_the_standard_allows_is_accepted(with_secret: Authenticator, text: str, scheme: str) -> None:
    assert authenticate(with_secret, [(b"authorization", f"{scheme} {text}".encode())]).subject


# Forged and unusable ones


def claims_with(name: str, text: str) -> str:
    return token(json.dumps({**CLAIMS, name: "VALUE"}).replace('"VALUE"', text))


FORGED: dict[str, str | bytes] = {
    # the algorithm is the key's
    **{f"alg {alg!r}": token(sign=lambda _: b"", header={"alg": alg}) for alg in ("none", "NONE", "", None, ["HS256"])},
    "alg none, signed": token(header={"alg": "none"}),
    "alg missing": token(header={"typ": "JWT"}),
    "alg RS256 where a secret is configured": jwt.encode(CLAIMS, RSA, "RS256"),
    "alg ES256 where a secret is configured": jwt.encode(CLAIMS, EC, "ES256"),
    "alg HS384 with our secret": token(
        sign=lambda m: hmac.new(SECRET.encode(), m.encode(), "sha384").digest(), header={"alg": "HS384"}
    ),
    # the signature is checked, by our key alone
    "another secret": token(sign=lambda m: hs256(m, "x" * 32)),
    "claims changed": ".".join([token().split(".")[0], b64({**CLAIMS, "sub": "admin"}), token().split(".")[2]]),
    "signature empty": token(sign=lambda _: b""),
    "jku": token(sign=lambda m: hs256(m, "x" * 32), header={"alg": "HS256", "jku": "http://127.0.0.1:1/keys"}),
    "jwk": token(sign=lambda m: hs256(m, "x" * 32), header={"alg": "HS256", "jwk": {"kty": "oct", "k": b64("x" * 32)}}),
    "kid of a file": token(sign=lambda m: hs256(m, b""), header={"alg": "HS256", "kid": "../../../dev/null"}),
    "kid a list": token(header={"alg": "HS256", "kid": []}),
    "crit": token(header={"alg": "HS256", "crit": ["exp"], "exp": NOW}),
    # which claims are required, and of which type
    **{f"{name} missing": token(**{name: None}) for name in ("iss", "aud", "sub", "exp")},
    "issuer of others": token(iss="others"),
    "audience of others": token(aud="others"),
    "expired": token(exp=NOW - 3600),
    "not yet valid": token(nbf=NOW + 3600),
    "issued in the future": token(iat=NOW + 3600),
    "subject a number": token(sub=7),
    "subject empty": token(sub=""),
    "subject with a line break": token(sub="robot\nadmin"),
    "subject too long": token(sub="a" * 257),
    "scope a list": token(scope=["predict"]),
    **{f"{name} as text": token(**{name: str(NOW - 9 + 3600 * (name == "exp"))}) for name in ("exp", "nbf", "iat")},
    **{f"{name} null": token({**CLAIMS, name: None}) for name in ("exp", "nbf", "iat")},
    **{f"expires {text}": claims_with("exp", text) for text in ("true", "NaN", "Infinity", "1e300", "9" * 5000)},
    "expires after the year 9999": token(exp=253_402_300_800),
    # the shape
    "empty": "",
    "dots": "..",
    "two parts": ".".join(token().split(".")[:2]),
    "five parts, as if encrypted": token() + ".abc.abc",
    "two tokens": f"{token()} {token()}",
    "two tokens with a comma": f"{token()},{token()}",
    "a space before": " " + token(),
    "a tab after": token() + "\t",
    "padding": token() + "=",
    "bytes beyond ASCII": token().encode() + b"\xff",
    "a zero": token() + "\0",
    "header not UTF-8": f"{b64(bytes([0xFF, 0xFE]))}.{b64(CLAIMS)}.{b64('x')}",
    "header nested deeply": token(header="[" * 2800 + "]" * 2800),
    "claims a list": token("[]"),
    "claims nested deeply": token("[" * 2500 + "]" * 2500),
    "9 kB": token(extra="x" * 9000),
}


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


GOOD = b"Bearer " + token().encode()


@pytest.mark.parametrize(
    "values",
    [[GOOD, GOOD], [GOOD, b""], [b"Basic eA==", GOOD], [b"Token" + GOOD[6:]], [GOOD[7:]], [b"Bearer"],
     [b"Bearer " + GOOD[6:]], [b"Bearer\t" + GOOD[7:]], [b""], [b"\xff\xfe\x00"]],
)  # fmt: skip
def test_exactly_one_header_of_the_right_scheme_is_needed(with_secret: Authenticator, values: list[bytes]) -> None:
    headers = [(b"authorization", value) for value in values]
    assert plain(refused(with_secret, headers)) == plain(refused(with_secret, bearer("a.b.c")))


def test_without_any_header_the_answer_says_what_is_needed(with_secret: Authenticator) -> None:
    problem = refused(with_secret, [(b"cookie", b"authorization=x"), (b"proxy-authorization", b"Bearer x")])
    assert (problem.status, problem.headers) == (401, {"www-authenticate": 'Bearer realm="lensmith"'})
    assert "Authorization: Bearer" in problem.detail


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS256"), (EC, "ES256")], ids=["RSA", "EC"])
def test_a_public_key_accepts_its_own_algorithm_and_no_other(
    make_authenticator: Callable[..., Authenticator], key: Any, alg: str
) -> None:
    authenticator = make_authenticator(jwt_key_file=pem(key))
    assert authenticate(authenticator, bearer(jwt.encode(CLAIMS, key, alg))).subject == "robot"
    other = EC if key is RSA else RSA
    for text in (
        jwt.encode(CLAIMS, other, "ES256" if key is RSA else "RS256"),
        *(jwt.encode(CLAIMS, RSA, each) for each in ("RS512", "PS256")),
        *(token(sign=lambda m: hs256(m, pem(key)), header={"alg": each}) for each in ("HS256", alg, "none")),
    ):
        assert refused(authenticator, bearer(text)).status == 401


@given(st.binary(max_size=200))
@example(b"Bearer " + token().encode()[:-1] + b"\n")
def test_no_header_whatever_is_a_fault_of_the_service(value: bytes) -> None:
    authenticator = Authenticator(StaticKeys(lambda: [secret_key(SECRET.encode())]), "lensmith", "lensmith")
    for text in (value, b"Bearer " + value, b"Bearer " + b64(value).encode() + b".e30.e30"):
        refused(authenticator, [(b"authorization", text)])


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda s: st.lists(s, max_size=2)
)


@given(
    st.dictionaries(st.sampled_from([*CLAIMS, "nbf", "jti"]), JSON),
    st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ"]), JSON),
)
def test_no_signed_claim_whatever_is_a_fault_of_the_service(claims: dict[str, Any], header: dict[str, Any]) -> None:
    authenticator = Authenticator(StaticKeys(lambda: [secret_key(SECRET.encode())]), "lensmith", "lensmith")
    for text in (token({**CLAIMS, **claims}), token(header={"alg": "HS256", **header})):
        with contextlib.suppress(ProblemError):
            assert authenticate(authenticator, bearer(text)).subject


# Scopes


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("predict", {"predict"}),
        ("admin", {"admin"}),
        ("admin openid predict", {"predict", "admin"}),
        ("", set()),
        ("Predict", set()),
        ("predict,admin", set()),
        ("administrator", set()),
    ],
)
def test_neither_scope_includes_the_other(with_secret: Authenticator, scope: str, allowed: set[str]) -> None:
    caller = authenticate(with_secret, bearer(token(scope=scope)))
    for name in ("predict", "admin"):
        if name in allowed:
            caller.require(name)
            continue
        with pytest.raises(ProblemError) as caught:
            caller.require(name)
        assert caught.value.status == 403
        challenge = f'Bearer realm="lensmith", error="insufficient_scope", scope="{name}"'
        assert caught.value.headers == {"www-authenticate": challenge}


# The cache of checked tokens


def test_a_cached_token_is_not_checked_again_until_it_expires(
    with_secret: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = token()
    first = authenticate(with_secret, bearer(text))
    monkeypatch.setattr(auth.jwt, "decode", None)
    assert authenticate(with_secret, bearer(text)) is first
    expected = plain(refused(with_secret, bearer("")))
    monkeypatch.setattr(auth.time, "time", lambda: float(CLAIMS["exp"] + auth.LEEWAY_S))
    assert plain(refused(with_secret, bearer(text))) == expected


def test_forged_tokens_are_not_cached_and_the_cache_is_bounded(
    with_secret: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MAX_CACHED_TOKENS", 3)
    for number in range(5):
        authenticate(with_secret, bearer(token(sub=f"robot {number}")))
        refused(with_secret, bearer(token(sub=f"robot {number}", sign=lambda _: b"x")))
    assert [caller.subject for caller, _ in with_secret._checked.values()] == ["robot 2", "robot 3", "robot 4"]


# Logs and settings


def test_a_reason_is_logged_once_in_a_while_and_never_with_the_token(
    with_secret: Authenticator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    forged = [token(sub=f"robot-{number}", exp=NOW - 3600) for number in range(5)]
    for text in forged:
        refused(with_secret, bearer(text))
    refused(with_secret, bearer(token(aud="others")))
    lines = [record.getMessage() for record in caplog.records if record.name == "lensmith.serving.auth.jwt"]
    assert len(lines) == 2
    assert "ExpiredSignatureError" in lines[0]
    assert "InvalidAudienceError" in lines[1]
    assert not any(part in caplog.text for text in forged for part in text.split("."))


def test_two_ways_to_check_tokens_are_one_too_many(
    make_authenticator: Callable[..., Authenticator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)
    for contents in ({"jwt_key_file": pem(RSA)}, {"jwks": {"keys": [jwk(RSA, "a")]}}):
        with pytest.raises(SettingsError, match="LENSMITH_JWT_SECRET"):
            make_authenticator(**contents)
    with pytest.raises(ValueError, match="jwks"):
        ServeSettings(bundle="x", jwt_key_file="a", jwks="b")


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.0.2.1", False), ("2001:db8::1", False), ("no.such.host.invalid", False)],
)  # fmt: skip
def test_others_are_not_served_without_authentication_unless_insecure_is_given(
    host: str, local: bool, with_secret: Authenticator
) -> None:
    given = ServeSettings(bundle="x", host=host)
    require_authentication(given, with_secret)
    require_authentication(given.model_copy(update={"insecure": True}), None)
    if local:
        require_authentication(given, None)
        return
    with pytest.raises(ServiceError, match="--insecure"):
        require_authentication(given, None)


# Several keys, and new ones

OLD, NEW = "an old secret of forty characters, or so", "a new secret of forty characters, or so"


def by(secret: str, **changed: Any) -> Any:
    return bearer(token(sign=lambda message: hs256(message, secret), **changed))


def test_keys_change_without_a_refused_caller(make_authenticator: Callable[..., Authenticator], tmp_path: Path) -> None:
    authenticator = make_authenticator(jwt_secret_file=OLD)
    assert authenticate(authenticator, by(OLD)).subject
    assert refused(authenticator, by(NEW)).kind == "unauthenticated"
    file = tmp_path / "jwt_secret_file"
    for content, valid, invalid in ((f"{OLD}\n{NEW}\n", [OLD, NEW], []), (f"{NEW}\n", [NEW], [OLD])):
        file.write_text(content)
        assert authenticator.reload_keys() == len(valid)
        for secret in valid:
            assert authenticate(authenticator, by(secret)).subject
        for secret in invalid:  # also a token that was checked before
            assert refused(authenticator, by(secret)).kind == "unauthenticated"


def test_keys_that_cannot_be_used_leave_the_old_ones(
    make_authenticator: Callable[..., Authenticator], tmp_path: Path
) -> None:
    authenticator = make_authenticator(jwt_secret_file=OLD)
    for content in ("", "short", f"{OLD}\nshort"):
        (tmp_path / "jwt_secret_file").write_text(content)
        with pytest.raises(SettingsError):
            authenticator.reload_keys()
        assert authenticate(authenticator, by(OLD)).subject


def test_a_token_of_any_key_in_a_file_of_public_keys_is_valid(make_authenticator: Callable[..., Authenticator]) -> None:
    authenticator = make_authenticator(jwt_key_file=pem(EC) + b"\n" + pem(RSA) + pem(OTHER_RSA))
    for key in (EC, RSA, OTHER_RSA):
        assert authenticate(authenticator, signed(key)).subject
    assert refused(authenticator, by(SECRET)).kind == "unauthenticated"


def test_what_is_wrong_with_a_token_of_an_older_key_is_logged_as_such(
    make_authenticator: Callable[..., Authenticator], caplog: pytest.LogCaptureFixture
) -> None:
    authenticator = make_authenticator(jwt_secret_file=f"{NEW}\n{OLD}")
    with caplog.at_level(logging.INFO):
        refused(authenticator, by(OLD, exp=NOW - 3600))
    assert "ExpiredSignatureError" in caplog.text
