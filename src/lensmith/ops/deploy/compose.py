"""Everything on one machine: nginx, two replicas, Redis, Prometheus and Grafana, as Docker Compose has it."""

from __future__ import annotations

import secrets

from lensmith.bundle.format import Bundle
from lensmith.core.version import __version__
from lensmith.ops.deploy.docker import image
from lensmith.ops.deploy.nginx import site
from lensmith.ops.deploy.plan import Files, Plan
from lensmith.ops.deploy.prometheus import watching
from lensmith.ops.deploy.render import page

REPLICAS = ("replica-1:8000", "replica-2:8000")
INSIDE = "0.0.0.0:8080"
"""Where nginx listens in its container; the host's address is `listen` of the settings."""
BUNDLE = "/bundles/current"
"""In the containers. The folder above is what is mounted, so that a bundle can be replaced by renaming."""
DOCKER_NAMES = "127.0.0.11"
"""Docker's name server, in every container."""
SECRETS = ("jwt_secret", "redis_password", "grafana_password")


def files(plan: Plan) -> Files:
    """`compose.yml`, what its containers read, and secrets made at random.

    Raises:
        BundleError: the bundle is damaged or missing.
    """
    bundle = Bundle.load(plan.settings.bundle) if plan.settings.bundle else None
    listen = plan.settings.listen
    address, _, port = listen.rpartition(":")
    names = {
        "published": f"{address}:{port}:8080" if address else f"{port}:8080",
        "replicas": [name.partition(":")[0] for name in REPLICAS],
        "bundle": BUNDLE,
        "venv": plan.settings.venv,
        "memory_mb": plan.settings.memory_mb,
        "cpus": plan.settings.cpus,
        "stop_s": int(plan.serve.grace_s) + 15,
        "secrets": SECRETS,
        "version": __version__,
    }
    made = {
        "compose.yml": page("compose/compose.yml", **names),
        ".gitignore": "secrets/\n",
        "nginx/lensmith.conf": site(
            plan, listen=INSIDE, replicas=REPLICAS, access_log="/dev/stdout", resolver=DOCKER_NAMES
        ),
        **image(plan, bundle, copied=False, at=BUNDLE, extras=("serve", "redis")),
        **watching(REPLICAS, "http://prometheus:9090", "/etc/grafana/dashboards"),
        **{f"secrets/{name}": secrets.token_urlsafe(32) for name in SECRETS},
    }
    if bundle:
        made["bundles/current"] = bundle.path
    return made
