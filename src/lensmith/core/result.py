"""Base class of the verbs' results: a dataclass that converts to plain values for `--json`."""

import dataclasses
from collections.abc import Mapping, Set
from datetime import date
from enum import Enum
from os import PathLike, fspath
from typing import Any, ClassVar


class Result:
    """Base of dataclasses with `as_dict`.

    Attributes:
        computed: names of properties that `as_dict` adds after the fields.
        hidden: names of fields that `as_dict` omits.
    """

    computed: ClassVar[tuple[str, ...]] = ()
    hidden: ClassVar[tuple[str, ...]] = ()

    def as_dict(self) -> dict[str, Any]:
        """Fields and computed properties as plain values for JSON."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
        names = [field.name for field in fields if field.name not in self.hidden]
        return {name: plain(getattr(self, name)) for name in (*names, *self.computed)}


def plain(value: Any) -> Any:
    """Convert a value for JSON: paths and times to text, arrays and tuples to lists, objects to their fields."""
    if isinstance(value, Result):
        return value.as_dict()
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | Set):
        return [plain(each) for each in value]
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        return value.tolist()
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no plain form")
