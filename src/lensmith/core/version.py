"""Versions: lensmith's own, in the one place that has it, and those of installed packages."""

from collections.abc import Sequence
from contextlib import suppress

__version__ = "0.1.0.dev0"


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of `packages` that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
