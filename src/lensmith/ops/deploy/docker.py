"""Docker image of the service: a Dockerfile and all that `docker build` needs beside it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from lensmith.bundle.format import Bundle
from lensmith.core.version import __version__
from lensmith.errors import OutputError
from lensmith.ops.deploy.deployment import Deployment, Files
from lensmith.ops.deploy.render import render

CONSTRAINTS = "constraints.txt"


def docker_files(deployment: Deployment) -> Files:
    """`Dockerfile`, `.dockerignore`, `constraints.txt`, and the wheel and bundle of the settings.

    Raises:
        BundleError: a damaged or missing bundle.
        OutputError: a `wheel` that is not a wheel.
    """
    bundle = Bundle.load(deployment.settings.bundle) if deployment.settings.bundle else None
    made = dict(image_files(deployment, bundle, copied=bundle is not None))
    if bundle:
        made["bundle"] = bundle.path
    return made


def image_files(
    deployment: Deployment, bundle: Bundle | None, copied: bool, at: str = "/bundle", extras: Sequence[str] = ("serve",)
) -> Files:
    """The files of the image, without the bundle.

    Args:
        deployment: validated deployment.
        bundle: bundle to serve, which decides whether OpenVINO is installed; None if it is unknown.
        copied: whether the bundle is part of the image, copied from `bundle/` beside the Dockerfile.
        at: path of the bundle in the container.
        extras: names of the package's extras to install.
    """
    settings = deployment.settings
    if bundle and any(record.engine == "openvino" and record.graph for record in bundle.manifest.engines):
        extras = (*extras, "openvino")
    if "heic" in deployment.serve.formats:
        extras = (*extras, "heic")
    wheel = settings.wheel
    if wheel and wheel.suffix != ".whl":
        raise OutputError(
            "A wheel of lensmith was expected, a file that ends in .whl.",
            f"{wheel} arrived.",
            "Make one in a checkout: pip wheel --no-deps --wheel-dir dist .",
        )
    extra_names = ",".join(extras)
    names = {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "venv": settings.venv,
        "wheel": wheel.name if wheel else None,
        "package": f"{wheel.name}[{extra_names}]" if wheel else f"lensmith[{extra_names}]=={__version__}",
        "copied": copied,
        "at": at,
        "environment": deployment.environment,
        "version": __version__,
    }
    return {
        "Dockerfile": render("docker/Dockerfile", **names),
        ".dockerignore": render("docker/dockerignore", **names),
        CONSTRAINTS: settings.constraints or tested_versions(),
        **({wheel.name: wheel} if wheel else {}),
    }


def tested_versions() -> str:
    """Text of constraints.txt: versions that lensmith was tested with; without it pip may install very old ones."""
    shipped = Path(__file__).with_name(CONSTRAINTS)  # a wheel has it here, a checkout at its top
    return (shipped if shipped.is_file() else Path(__file__).parents[4] / CONSTRAINTS).read_text(encoding="utf-8")
