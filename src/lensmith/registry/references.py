"""`flowers@champion`: how a registered model is named where a bundle's path could stand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from lensmith.errors import RegistryError

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Aliases of the version that answers, of the one that is tried beside it, and of the champion before."""

_WRITTEN = re.compile(r"(?P<name>[\w][\w. -]*)@(?P<which>[\w][\w.-]*)")


@dataclass(frozen=True)
class ModelReference:
    """A version of a registered model.

    Attributes:
        name: of the model.
        which: an alias, or a version's number.
    """

    name: str
    which: str

    @property
    def is_version(self) -> bool:
        """Whether it names a version, which never changes, and not an alias."""
        return self.which.isdecimal()

    def __str__(self) -> str:
        return f"{self.name}@{self.which}"


def parse(path: str | PathLike[str]) -> ModelReference | None:
    """What `NAME@ALIAS` or `NAME@VERSION` names; None where it is a path: of this form, but a file is there, or not."""
    written = fspath(path)
    found = _WRITTEN.fullmatch(written)
    return ModelReference(found["name"], found["which"]) if found and not Path(written).exists() else None


def require(written: str) -> ModelReference:
    """What `NAME@ALIAS` or `NAME@VERSION` names, whatever lies in the folder.

    Raises:
        RegistryError: it has another form.
    """
    found = _WRITTEN.fullmatch(written)
    if found is None:
        raise RegistryError(
            "A version of a model was expected, as NAME@ALIAS or NAME@VERSION.",
            f"{written[:120]!r} arrived.",
            f"Write it as flowers@{CHAMPION} or flowers@3.",
        )
    return ModelReference(found["name"], found["which"])
