"""An image of the service: a Dockerfile and all that `docker build` needs beside it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lensmith.bundle.format import Bundle
from lensmith.core.version import __version__
from lensmith.errors import OutputError
from lensmith.ops.deploy.plan import Files, Plan
from lensmith.ops.deploy.render import page

CONSTRAINTS = "constraints.txt"


def files(plan: Plan) -> Files:
    """`Dockerfile`, `.dockerignore`, `constraints.txt`, and the wheel and bundle where they are named.

    Raises:
        BundleError: the bundle is damaged or missing.
        OutputError: the wheel is none.
    """
    bundle = Bundle.load(plan.settings.bundle) if plan.settings.bundle else None
    made = dict(image(plan, bundle, copied=bundle is not None))
    if bundle:
        made["bundle"] = bundle.path
    return made


def image(
    plan: Plan, bundle: Bundle | None, copied: bool, at: str = "/bundle", extras: Sequence[str] = ("serve",)
) -> Files:
    """What makes the image, without the bundle.

    Args:
        plan: as for `files`.
        bundle: what will be served, which says whether OpenVINO is needed; None: not known.
        copied: the bundle is part of the image, from `bundle/` beside the Dockerfile.
        at: where the service looks for it.
        extras: of the package, to be installed.
    """
    settings = plan.settings
    if bundle and any(record.engine == "openvino" and record.graph for record in bundle.manifest.engines):
        extras = (*extras, "openvino")
    wheel = settings.wheel
    if wheel and wheel.suffix != ".whl":
        raise OutputError(
            "A wheel of lensmith was expected, a file that ends in .whl.",
            f"{wheel} arrived.",
            "Make one in a checkout: pip wheel --no-deps --wheel-dir dist .",
        )
    named = ",".join(extras)
    names = {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "venv": settings.venv,
        "wheel": wheel.name if wheel else None,
        "package": f"{wheel.name}[{named}]" if wheel else f"lensmith[{named}]=={__version__}",
        "copied": copied,
        "at": at,
        "environment": plan.environment,
        "version": __version__,
    }
    return {
        "Dockerfile": page("docker/Dockerfile", **names),
        ".dockerignore": page("docker/dockerignore", **names),
        CONSTRAINTS: settings.constraints or tested_versions(),
        **({wheel.name: wheel} if wheel else {}),
    }


def tested_versions() -> str:
    """constraints.txt: the versions that this version of lensmith was tested with; pip alone may take very old ones."""
    shipped = Path(__file__).with_name(CONSTRAINTS)  # put there when a wheel is made; in a checkout it lies at the top
    return (shipped if shipped.is_file() else Path(__file__).parents[4] / CONSTRAINTS).read_text(encoding="utf-8")
