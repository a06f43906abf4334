"""The review over HTTP: the page, the pictures by their position in the source, decisions, and what others did."""

import json
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from lensmith.curation.reviewing.access import AccessMiddleware
from lensmith.curation.reviewing.journal import LabelDecision
from lensmith.curation.reviewing.pictures import SIDES_PX, PictureSender
from lensmith.curation.reviewing.session import RefusedError, Session
from lensmith.curation.reviewing.suggestions import Suggester
from lensmith.errors import ImageError

PAGE = Path(__file__).parent / "page"
MAX_BODY_BYTES = 10_000
"""Largest body of a decision, in bytes."""
PICTURE_AGE_S = 3600
"""Seconds for which a browser keeps a picture."""


class ReviewApp:
    """Routes of a review.

    Args:
        session: review under way.
        suggester: suggestions of a bundle; None without one.
        reviewer: name that the page begins with; empty: the page asks.
        out: path of the manifest, for people.
        on_decision: called after each decision.
        named_by_flag: whether `reviewer` goes before the name that was used in this browser last.
    """

    def __init__(
        self,
        session: Session,
        suggester: Suggester | None,
        reviewer: str,
        out: Path,
        on_decision: Callable[[], None] = lambda: None,
        named_by_flag: bool = False,
    ) -> None:
        self._session = session
        self._suggester = suggester
        self._reviewer = reviewer
        self._named_by_flag = named_by_flag
        self._out = out
        self._on_decision = on_decision
        self._pictures = PictureSender(session.source)
        self._run = secrets.token_hex(4)  # keeps pictures of another review out of the browser's cache

    def application(self, token: str | None) -> Starlette:
        """The ASGI application, behind `token` if there is one."""
        routes = [
            Route("/", self._page),
            Route("/api/review", self._review),
            Route("/api/changes", self._changes),
            Route("/api/decisions", self._decide, methods=["POST"]),
            Route("/api/pictures/{position:int}", self._picture),
            Mount("/page", StaticFiles(directory=PAGE, packages=[("lensmith.core", "page_assets")])),
        ]
        return Starlette(routes=routes, middleware=[Middleware(AccessMiddleware, token=token)])

    async def _page(self, _: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def _review(self, _: Request) -> Response:
        """Everything that the page needs to begin: pictures in columns, classes, and decisions that count."""
        return Response(await run_in_threadpool(self._state), media_type="application/json")

    def _state(self) -> bytes:
        session, suggester = self._session, self._suggester
        seen, suggested = len(session.log), len(suggester.done) if suggester else 0
        items = session.source.items
        labels = list(session.labels)
        state = {
            "title": session.source.title,
            "source": str(session.source.path),
            "of": session.source.fingerprint,
            "run": self._run,
            "kind": session.source.kind,
            "out": str(self._out),
            "journal": session.journal.path.name,
            "reviewer": self._reviewer,
            "named_by_flag": self._named_by_flag,
            "bundle": suggester.name if suggester else None,
            "closed": session.is_closed,
            "notes": list(session.source.notes),
            "labels": labels,
            "paths": [item.path for item in items],
            "own": [item.label for item in items],
            "suggested": [[item.suggested, item.confidence] if item.suggested else None for item in items],
            "scores": {position: item.score for position, item in enumerate(items) if item.score is not None},
            "reasons": {position: item.reason for position, item in enumerate(items) if item.reason},
            "named": {position: item.named for position, item in enumerate(items) if item.named},
            "decided": {position: [_shown(each) for each in by.values()]
                        for position, by in list(session.decided.items()) if by},
            "answers": {each.position: each.top for each in suggester.done[:suggested]} if suggester else {},
            "seen": seen,
            "answered": suggested,
        }  # fmt: skip
        return json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

    async def _changes(self, request: Request) -> Response:
        """Decisions and suggestions since those that the page has; `looking` names the picture that it shows."""
        session, suggester = self._session, self._suggester
        seen, answered = (_number(request, name) for name in ("seen", "answered"))
        if suggester is not None and "looking" in request.query_params:
            suggester.hurry(_number(request, "looking", len(session.source.items) - 1))
        now_seen = len(session.log)
        now_answered = len(suggester.done) if suggester else 0
        positions = sorted({position for position in session.log[seen:now_seen] if position >= 0})
        new = suggester.done[answered:now_answered] if suggester else []
        return JSONResponse({
            "of": session.source.fingerprint,
            "labels": list(session.labels),
            "decided": {position: [_shown(each) for each in list(session.decided.get(position, {}).values())]
                        for position in positions},
            "answers": {each.position: each.top for each in new},
            "seen": now_seen,
            "answered": now_answered,
        })  # fmt: skip

    async def _decide(self, request: Request) -> Response:
        """Take one decision; it is on disk before the answer is sent."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _problem(415, "not-json", "A decision is sent as application/json.")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                return _problem(413, "too-large", f"A decision has at most {MAX_BODY_BYTES:,} bytes.")
        try:
            take = self._taking(json.loads(body))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return _problem(422, "malformed", f"That is no decision ({type(error).__name__}: {error}).")
        try:
            decision = await run_in_threadpool(take)
        except RefusedError as refused:
            return _problem(409, refused.kind, str(refused), similar=list(refused.similar))
        except OSError as error:
            return _problem(507, "not-written", f"The journal cannot be written ({error.strerror or error}).")
        self._on_decision()
        position = self._session.source.index[decision.path]
        by = [_shown(each) for each in list(self._session.decided.get(position, {}).values())]
        return JSONResponse({"decision": _shown(decision), "decided": by, "labels": list(self._session.labels)})

    def _taking(self, given: dict[str, Any]) -> Callable[[], LabelDecision]:
        """The call that takes a decision.

        Raises:
            ValueError: a field is missing or of another type.
        """
        texts = {name: given.get(name, "") for name in ("id", "by", "action", "label", "undoes", "path")}
        if not all(isinstance(value, str) for value in texts.values()) or not 8 <= len(texts["id"]) <= 64:
            raise ValueError("id (8 to 64 characters), by, action, label, undoes and path are texts")
        position, action = given["position"], texts["action"]
        if type(position) is not int:
            raise ValueError("position is a whole number")
        if action not in ("label", "exclude", "skip", "undo"):
            raise ValueError("action is label, exclude, skip or undo")
        if texts["path"]:  # which goes before a position in a source that has been changed since
            position = self._session.source.index.get(texts["path"], -1)
        for value in texts.values():
            value.encode()  # half a surrogate pair is no text
        return partial(
            self._session.decide, texts["id"], texts["by"], position, action,
            label=texts["label"], undoes=texts["undoes"], new_class=given.get("new_class") is True,
        )  # fmt: skip

    async def _picture(self, request: Request) -> Response:
        """A picture by its position, at one of a few sizes."""
        position = request.path_params["position"]
        source = self._session.source
        if request.query_params.get("of", source.fingerprint) != source.fingerprint:
            return _problem(409, "other-source", "The source has other pictures now: load the page again.")
        if position >= len(source.items):
            return _problem(404, "no-such-picture", f"There is no picture {position}.")
        wanted = _number(request, "px", SIDES_PX[-1])
        side = next((each for each in SIDES_PX if each >= wanted), SIDES_PX[-1])
        try:
            shown = await run_in_threadpool(self._pictures.show, position, side)
        except ImageError as error:
            return _problem(422, "unreadable", error.arrived)
        headers = {"cache-control": f"private, max-age={PICTURE_AGE_S}", "vary": "cookie"}
        return Response(shown.encoded, media_type=shown.mime, headers=headers)


def _number(request: Request, name: str, most: int = 2**53) -> int:
    """A number of the query, at least 0 and at most `most`; 0 where it is missing or none."""
    text = request.query_params.get(name, "0")
    return min(int(text), most) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _shown(decision: LabelDecision) -> list[str]:
    """A decision for the page: id, reviewer, action, label."""
    return [decision.id, decision.by, decision.action, decision.label]


def _problem(status: int, kind: str, message: str, **more: Any) -> Response:
    return JSONResponse({"problem": kind, "message": message, **more}, status)
