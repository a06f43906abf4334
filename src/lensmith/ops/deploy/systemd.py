"""systemd: a hardened unit of which each replica is an instance, named by its port, and a target for all of them."""

from __future__ import annotations

import math
from pathlib import Path

from lensmith.errors import SettingsError
from lensmith.ops.deploy.plan import Files, Plan
from lensmith.ops.deploy.render import page

BUNDLE = Path("/srv/lensmith/bundle")
"""Where the bundle is looked for unless one is named."""

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Folders that the unit's sandbox hides."""

SETTLE_S = 15
"""Seconds beyond the grace period until systemd kills: draining has to finish before."""


def files(plan: Plan) -> Files:
    """`lensmith@.service`, `lensmith.target` and the settings in `lensmith.env`.

    Raises:
        SettingsError: a bundle or replica that such a unit cannot reach.
    """
    settings = plan.settings
    bundle = settings.bundle or BUNDLE
    hidden = any(bundle.is_relative_to(each) for each in HIDDEN)
    if not bundle.is_absolute() or hidden or any(char in str(bundle) for char in " \t\n\"'%$\\"):
        raise SettingsError(
            f"An absolute path without blanks and outside {', '.join(HIDDEN)} was expected for the bundle.",
            f"{str(bundle)!r} arrived, and a unit that is locked in sees no such path.",
            f"Copy the bundle to {BUNDLE}, and leave the argument out.",
        )
    away = [replica for replica in plan.replicas if replica.rpartition(":")[0] not in ("127.0.0.1", "localhost")]
    if away:
        raise SettingsError(
            "Replicas on this machine were expected, behind a proxy that runs here, too.",
            f"{', '.join(away)} arrived.",
            "Name them as --replica 127.0.0.1:PORT, on each machine its own.",
        )
    ports = [replica.rpartition(":")[2] for replica in plan.replicas]
    names = {
        "bundle": bundle,
        "venv": settings.venv,
        "ports": ports,
        "memory_mb": settings.memory_mb,
        "cpu_percent": round(settings.cpus * 100),
        "stop_s": math.ceil(plan.serve.grace_s) + SETTLE_S,
        "environment": plan.environment,
    }
    return {name: page(f"systemd/{name}", **names) for name in ("lensmith@.service", "lensmith.target", "lensmith.env")}
