"""Who may use the review page: this machine's own browser, or whoever has the token.

Without a token only requests to a loopback name are answered: a page of another site whose name was pointed at this
machine (DNS rebinding) sends that name as `Host`. Requests that other sites make a browser send are refused by their
`Origin` and `Sec-Fetch-Site`. The token arrives once, in the address that the terminal shows, and stays in a cookie.
"""

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lensmith.core.machine import is_loopback

HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class AccessMiddleware:
    """Answers requests of strangers with 403, and adds the headers that every answer has.

    Args:
        app: the application behind it.
        token: secret that every request must have in its cookie; None: requests must come to a loopback name.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
                if b"cache-control" not in present:
                    message["headers"].append((b"cache-control", b"no-cache"))
            await send(message)

        answer = self._refusal(scope, headers)
        return await (answer or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that goes no further; None for all others."""
        host = headers.get("host", "")
        if self._token is None and not is_own_name(host):
            return _refused("This page is for the machine that it runs on: open it by 127.0.0.1 or localhost.")
        if is_foreign(headers, scope["method"], host):
            return _refused("Requests that another site has made are not answered.")
        if self._token is None:
            return None
        cookie = cookie_name(host)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and scope["method"] == "GET" and scope["path"] == "/" and _same(given, self._token):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(cookie, self._token, httponly=True, samesite="lax", path="/")
            return answer
        if not _same(_cookies(headers).get(cookie, ""), self._token):
            return _refused("Open the address that `lensmith review` has printed, with its token.", 401)
        return None


def is_own_name(host: str) -> bool:
    """Whether a `Host` header names this machine by a loopback address or `localhost`, at any port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name) and not set(host) & set("@/?#\\")  # none of which a browser sends


def is_foreign(headers: Headers, method: str, host: str) -> bool:
    """Whether a browser says that another site has caused a request; links from elsewhere to the page are none."""
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none") and not (method == "GET" and headers.get("sec-fetch-mode") == "navigate"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != host


def page_address(host: str, port: int, token: str | None) -> str:
    """The address to open, with the token where there is one."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/{'?' + urlencode({'token': token}) if token else ''}"


def cookie_name(host: str) -> str:
    """Name of the cookie at an address: cookies are shared by all ports of a machine, and tokens are not."""
    try:
        port = urlsplit(f"//{host}").port
    except ValueError:
        port = None
    return f"lensmith-review-{port or 80}"


def _cookies(headers: Headers) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return {name: value for name, _, value in pairs}


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())


def _refused(reason: str, status: int = 403) -> Response:
    return PlainTextResponse(f"{reason}\n", status)
