"""nginx configuration: load balancing over replicas, failover to another replica, protection from slow clients."""

import json
import math
from typing import Any

from lensmith.ops.deploy.deployment import Deployment, Files
from lensmith.ops.deploy.render import render
from lensmith.serving.problems import KINDS, MEDIA_TYPE, TYPE_PREFIX

FORM_BYTES = 65_536
"""Bytes allowed beside the image for the boundaries and headers of a form, so that the service decides close cases."""

PROXY_PROBLEMS = {
    404: ("not-found", "There is nothing here for you; GET /openapi.json lists what there is."),
    413: (
        "too-large",
        "The body is larger than is read here (client_max_body_size, by the setting max_bytes of `lensmith serve`); "
        "GET /model says how large an image may be.",
    ),
    500: ("internal-error", "The proxy failed. The identifier of the request leads to its line in the log."),
    502: ("not-ready", "No replica answers at present. Ask again in a moment."),
    504: ("expired", "No replica answered in time. Ask again in a moment."),
}
"""Status of an error that nginx itself answers → kind and detail for the service's problem envelope."""


def nginx_files(deployment: Deployment) -> Files:
    """`lensmith.conf` for nginx's conf.d, and an `nginx.conf` that runs it alone, as any user."""
    return {
        "lensmith.conf": site_config(deployment),
        "nginx.conf": render("nginx/nginx.conf", logs=deployment.settings.logs),
    }


def site_config(deployment: Deployment, **overrides: Any) -> str:
    """Text of `lensmith.conf`.

    Args:
        deployment: validated deployment.
        overrides: `listen`, `replicas` and `access_log` in place of the deployment's; `resolver`, the address of a
            name server that nginx (from 1.27.3) asks again for the replicas' addresses.
    """
    serve, settings = deployment.serve, deployment.settings
    one_image = serve.max_bytes + FORM_BYTES
    # Several images, or images as base64 in JSON, which takes four bytes for three.
    several_images = min(math.ceil(serve.max_bytes * serve.max_images * 4 / 3), serve.upload_memory) + FORM_BYTES
    names = {
        "listen": settings.listen,
        "replicas": deployment.replicas,
        "access_log": settings.logs / "lensmith.json",
        "resolver": None,
        "certificate": settings.tls_certificate,
        "key": settings.tls_key,
        **overrides,
    }
    return render(
        "nginx/lensmith.conf",
        one_bytes=one_image,
        many_bytes=max(one_image, several_images),
        answer_ms=max(1000, math.ceil(5 * serve.deadline_ms)),
        upload_s=math.ceil(serve.upload_timeout_s),
        tries=min(len(names["replicas"]), 3),
        problems=[_problem(status, kind, detail) for status, (kind, detail) in PROXY_PROBLEMS.items()],
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
