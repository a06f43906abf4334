"""What was done with the scope `admin`, one JSON line each on the logger `lensmith.audit`.

The line is the record's message; the same as a dictionary is its attribute `audit`, for formatters that write JSON.
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
"""Characters of one detail; what is longer is cut."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")


def record(action: str, caller: Caller | None, request_id: str, outcome: str, **details: Any) -> None:
    """Write one line about an act or the attempt at one; never raises.

    Args:
        action: what was asked for, as `swap`.
        caller: who asked; None: the service does not ask who calls, or could not tell.
        request_id: the request's identifier.
        outcome: what came of it: `done`, `refused` or `failed`.
        details: more, as the `client` address or a bundle's path. What looks like a token is left out; secrets must not
            be passed.
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
    except Exception:  # an observer does not fail what it observes
        return f"[{type(value).__name__}]"
