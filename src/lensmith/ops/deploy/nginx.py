"""nginx in front of replicas: spreads requests, asks another replica where one fails, keeps slow clients away."""

from __future__ import annotations

import json
import math
from typing import Any

from lensmith.ops.deploy.plan import Files, Plan
from lensmith.ops.deploy.render import page
from lensmith.serving.problems import KINDS, MEDIA_TYPE, TYPE_PREFIX

FORM_BYTES = 65_536
"""Bytes allowed beside the image for the boundaries and headers of a form, so that the service judges close cases."""

MADE_HERE = {
    404: ("not-found", "There is nothing here for you; GET /openapi.json lists what there is."),
    413: ("too-large", "The body is larger than is read here; GET /model says how large an image may be."),
    500: ("internal-error", "The proxy failed. The identifier of the request leads to its line in the log."),
    502: ("not-ready", "No replica answers at present. Ask again in a moment."),
    504: ("expired", "No replica answered in time. Ask again in a moment."),
}
"""What nginx finds wrong itself → kind and detail of the service's own envelope."""


def files(plan: Plan) -> Files:
    """`lensmith.conf` for nginx's conf.d, and `nginx.conf` that runs it alone, as any user."""
    return {"lensmith.conf": site(plan), "nginx.conf": page("nginx/nginx.conf", logs=plan.settings.logs)}


def site(plan: Plan, **named: Any) -> str:
    """`lensmith.conf`.

    Args:
        plan: replicas and limits.
        named: `listen`, `replicas`, `access_log` in the place of the plan's; `resolver`, a name server that is asked
            anew where replicas are, for nginx from 1.27.3.
    """
    serve, settings = plan.serve, plan.settings
    one = serve.max_bytes + FORM_BYTES
    # Several images, or images as base64 in JSON, which takes four bytes for three.
    many = min(math.ceil(serve.max_bytes * serve.max_images * 4 / 3), serve.upload_memory) + FORM_BYTES
    names = {
        "listen": settings.listen,
        "replicas": plan.replicas,
        "access_log": settings.logs / "lensmith.json",
        "resolver": None,
        "certificate": settings.tls_certificate,
        "key": settings.tls_key,
        **named,
    }
    return page(
        "nginx/lensmith.conf",
        one_bytes=one,
        many_bytes=max(one, many),
        answer_ms=max(1000, math.ceil(5 * serve.deadline_ms)),
        upload_s=math.ceil(serve.upload_timeout_s),
        tries=min(len(names["replicas"]), 3),
        problems=[_problem(status, kind, detail) for status, (kind, detail) in MADE_HERE.items()],
        media_type=MEDIA_TYPE,
        **names,
    )


def _problem(found: int, kind: str, detail: str) -> dict[str, Any]:
    status, title = KINDS[kind]
    envelope = {
        "type": TYPE_PREFIX + kind,
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": "$lensmith_request_id",
    }
    return {"found": found, "kind": kind, "status": status, "body": json.dumps(envelope)}
