"""systemd units: a hardened template unit with an instance for each replica's port, and a target for all of them."""

import math
from pathlib import Path

from lensmith.errors import SettingsError
from lensmith.ops.deploy.deployment import Deployment, Files
from lensmith.ops.deploy.render import render

BUNDLE = Path("/srv/lensmith/bundle")
"""Path of the bundle, if the settings name none."""

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Folders that the unit's sandbox hides."""

EXTRA_STOP_S = 15
"""Seconds after the grace period until systemd kills the service, which must have drained by then."""


def systemd_files(deployment: Deployment) -> Files:
    """`lensmith@.service`, `lensmith.target`, and `lensmith.env` with the settings.

    Raises:
        SettingsError: a bundle or replica that such a unit cannot reach.
    """
    settings = deployment.settings
    bundle = settings.bundle or BUNDLE
    hidden = any(bundle.is_relative_to(each) for each in HIDDEN)
    if not bundle.is_absolute() or hidden or any(char in str(bundle) for char in " \t\n\"'%$\\"):
        raise SettingsError(
            f"An absolute path without blanks and outside {', '.join(HIDDEN)} was expected for the bundle.",
            f"{str(bundle)!r} arrived, which the unit's sandbox cannot see.",
            f"Copy the bundle to {BUNDLE}, and leave the argument out.",
        )
    remote = [
        replica for replica in deployment.replicas if replica.rpartition(":")[0] not in ("127.0.0.1", "localhost")
    ]
    if remote:
        raise SettingsError(
            "Replicas on this machine were expected, behind a proxy that also runs here.",
            f"{', '.join(remote)} arrived.",
            "Name them as --replica 127.0.0.1:PORT, on each machine its own.",
        )
    ports = [replica.rpartition(":")[2] for replica in deployment.replicas]
    names = {
        "bundle": bundle,
        "venv": settings.venv,
        "ports": ports,
        "memory_mb": settings.memory_mb,
        "cpu_percent": round(settings.cpus * 100),
        "stop_s": math.ceil(deployment.serve.grace_s) + EXTRA_STOP_S,
        "environment": deployment.environment,
    }
    return {
        name: render(f"systemd/{name}", **names) for name in ("lensmith@.service", "lensmith.target", "lensmith.env")
    }
