"""Model references: `NAME@ALIAS` or `NAME@VERSION`, in place of a bundle's path."""

import hashlib
import re
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from lensmith.errors import RegistryError

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Aliases of the version in service, of the version compared with it in a canary release, and of the last champion."""

_WRITTEN = re.compile(r"(?P<name>[\w][\w. -]*)@(?P<which>[\w][\w.-]*)")


@dataclass(frozen=True)
class ModelReference:
    """A reference to a version of a registered model.

    Attributes:
        name: the registered model's name.
        which: alias, or number of a version.
    """

    name: str
    which: str

    @property
    def is_version(self) -> bool:
        """Whether it names a version, which never changes, rather than an alias."""
        return self.which.isdecimal()

    def cache_key(self, address: str) -> str:
        """File name, 16 hexadecimal digits, for what the cache holds about this name in the registry at `address`."""
        return hashlib.sha256(f"{address} {self}".encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.name}@{self.which}"


def parse(path: str | PathLike[str]) -> ModelReference | None:
    """Parse `NAME@ALIAS` or `NAME@VERSION`; None for a path, also of this form where such a file exists."""
    written = fspath(path)
    found = _WRITTEN.fullmatch(written)
    return ModelReference(found["name"], found["which"]) if found and not Path(written).exists() else None


def require(written: str) -> ModelReference:
    """Parse `NAME@ALIAS` or `NAME@VERSION`, even where a file of that name exists.

    Raises:
        RegistryError: the text has another form.
    """
    found = _WRITTEN.fullmatch(written)
    if found is None:
        raise RegistryError(
            "A version of a model was expected, as NAME@ALIAS or NAME@VERSION.",
            f"{written[:120]!r} arrived.",
            f"Write it as flowers@{CHAMPION} or flowers@3.",
        )
    return ModelReference(found["name"], found["which"])
