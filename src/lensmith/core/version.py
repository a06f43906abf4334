"""Versions: lensmith's own, in the one place that has it, and those of installed packages."""

from collections.abc import Sequence
from functools import cache

__version__ = "0.1.0.dev0"


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of `packages` that are installed."""
    return {package: version for package in packages if (version := _version(package)) is not None}


@cache  # reading a package's metadata takes milliseconds
def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
