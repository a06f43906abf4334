"""Docker Compose files for one machine: nginx, two replicas, Redis, Prometheus and Grafana."""

import secrets

from lensmith.bundle.format import Bundle
from lensmith.core.version import __version__
from lensmith.ops.deploy.deployment import Deployment, Files
from lensmith.ops.deploy.docker import image_files
from lensmith.ops.deploy.nginx import site_config
from lensmith.ops.deploy.prometheus import monitoring_files
from lensmith.ops.deploy.render import render

REPLICAS = ("replica-1:8000", "replica-2:8000")
INSIDE = "0.0.0.0:8080"
"""Address of nginx inside its container; the setting `listen` is that of the host."""
BUNDLE = "/bundles/current"
"""Path of the bundle in the containers. Its parent is mounted, so that renaming can replace the bundle."""
DOCKER_NAMES = "127.0.0.11"
"""Address of Docker's name server, in every container."""
SECRETS = ("jwt_secret", "redis_password", "grafana_password")


def compose_files(deployment: Deployment) -> Files:
    """`compose.yml`, the files that its containers read, and random secrets.

    Raises:
        BundleError: a damaged or missing bundle.
    """
    bundle = Bundle.load(deployment.settings.bundle) if deployment.settings.bundle else None
    listen = deployment.settings.listen
    address, _, port = listen.rpartition(":")
    names = {
        "published": f"{address}:{port}:8080" if address else f"{port}:8080",
        "replicas": [name.partition(":")[0] for name in REPLICAS],
        "bundle": BUNDLE,
        "venv": deployment.settings.venv,
        "memory_mb": deployment.settings.memory_mb,
        "cpus": deployment.settings.cpus,
        "stop_s": int(deployment.serve.grace_s) + 15,
        "secrets": SECRETS,
        "version": __version__,
    }
    made = {
        "compose.yml": render("compose/compose.yml", **names),
        ".gitignore": "secrets/\n",
        "nginx/lensmith.conf": site_config(
            deployment, listen=INSIDE, replicas=REPLICAS, access_log="/dev/stdout", resolver=DOCKER_NAMES
        ),
        **image_files(deployment, bundle, copied=False, at=BUNDLE, extras=("serve", "redis")),
        **monitoring_files(REPLICAS, "http://prometheus:9090", "/etc/grafana/dashboards"),
        **{f"secrets/{name}": secrets.token_urlsafe(32) for name in SECRETS},
    }
    if bundle:
        made["bundles/current"] = bundle.path
    return made
