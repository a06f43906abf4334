"""Disjoint sets: keys that are joined, directly or by way of others, have one representative (union–find)."""

from collections.abc import Iterable


class DisjointSets:
    """Sets of text keys; a key that was never joined is a set by itself."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, key: str) -> str:
        """The representative of a key's set."""
        while (parent := self._parent.setdefault(key, key)) != key:
            self._parent[key] = self._parent.setdefault(parent, parent)
            key = self._parent[key]
        return key

    def join(self, key: str, other: str) -> None:
        """Join the sets of two keys; the representative is that of the first."""
        self._parent[self.find(other)] = self.find(key)

    @property
    def keys(self) -> Iterable[str]:
        """All keys that were joined or looked for."""
        return tuple(self._parent)
