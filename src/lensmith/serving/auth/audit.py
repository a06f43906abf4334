"""Audit log: one JSON line for each admin act and each attempt, on the logger `lensmith.audit`.

The line is the log record's message; its attribute `audit` is the same as a dictionary, for formatters that write JSON.
"""

from __future__ import annotations

import json
import logging
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensmith.serving.auth.jwt import Caller

logger = logging.getLogger("lensmith.audit")

MAX_TEXT = 1000
"""Most characters of one detail; longer ones are cut."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")


def record(action: str, caller: Caller | None, request_id: str, outcome: str, **details: Any) -> None:
    """Log one admin act or attempt; never raises.

    Args:
        action: name of the act, such as `swap`.
        caller: the authenticated sender; None: unknown, or without authentication.
        request_id: identifier of the request.
        outcome: `done`, `refused` or `failed`.
        details: further values, such as the `client` address or a bundle's path. Text that looks like a token is
            replaced; secrets must not be passed.
    """
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "action": action,
        "subject": caller.subject if caller else None,
        "request_id": request_id,
        "outcome": outcome,
        "details": {name: _plain(value) for name, value in details.items()},
    }
    logger.info("%s", json.dumps(entry), extra={"audit": entry})


def _plain(value: Any) -> bool | int | float | str | None:
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    try:
        return _TOKEN.sub("[token]", str(value))[:MAX_TEXT]
    except Exception:  # logging must not fail the act
        return f"[{type(value).__name__}]"
