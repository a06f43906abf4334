"""Versions: lensmith's own, in the one place that has it, and those of installed packages."""

from collections.abc import Sequence

__version__ = "0.1.0.dev0"


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of `packages` that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
