"""Row cache: one array row for each content, such as a picture's features, computed once for all lists of contents.

An entry of the array cache holds the rows of one list, in its order, as one array mapped into memory. Beside it lie the
digests of the contents. Where a list has no entry yet, rows are copied from the entries of other lists that depend on
the same values, and only the others are computed.

    CACHE/kept/KIND/DIGEST/rows     a record for each row: 32 bytes of the content's digest, length int64
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.core.array_cache import BLOCKS, DATA, DESCRIPTION, WRITTEN, ArrayCache

ComputeRows = Callable[[Sequence[int]], Iterator[npt.NDArray[Any]]]
"""Function from the numbers of rows to these rows in that order, in arrays of one or several whole rows."""

ROWS = "rows"

_RECORD = np.dtype([("content", "<u8", 4), ("length", "<i8")])
_NO_CONTENT = bytes(32)


@dataclass(frozen=True)
class RowKey:
    """All that the rows of a list of contents depend on, besides the contents.

    Attributes:
        kind: kind of the rows, which names their folder: `features`, `pixels` or `answers`.
        values: plain values.
        dtype: NumPy's name of the elements' dtype.
    """

    kind: str
    values: Mapping[str, Any]
    dtype: str

    @property
    def family(self) -> str:
        """A digest of the key, which the entries of all lists share."""
        whole = json.dumps([self.kind, dict(self.values), self.dtype], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()


def rows_by_content(
    store: ArrayCache,
    key: RowKey,
    contents: Sequence[bytes | None],
    lengths: Sequence[int],
    compute: ComputeRows,
    title: str,
    *,
    rows_a_block: int,
    waiting: Callable[[], None] = lambda: None,
    wider: RowKey | None = None,
) -> npt.NDArray[Any]:
    """The rows of these contents, one after the other; those that no entry has are computed.

    Args:
        store: the cache.
        key: what the rows depend on.
        contents: digest of each row's content, 32 bytes; None: not known, so the row is computed.
        lengths: number of elements in each row.
        compute: function that computes rows.
        title: description for people.
        rows_a_block: number of rows that are written together.
        waiting: see `ArrayCache.get_or_compute`.
        wider: key of rows that differ in nothing but a wider dtype, and may be converted.

    Returns:
        Array of shape (sum of lengths,), read-only and mapped into memory.

    Raises:
        NotCachedError: as `ArrayCache.get_or_compute`.
    """
    records = np.zeros(len(contents), dtype=_RECORD)
    joined = b"".join(content or _NO_CONTENT for content in contents)
    records["content"] = np.frombuffer(joined, dtype="<u8").reshape(-1, 4)
    records["length"] = lengths
    whole_key = {**key.values, "rows": hashlib.sha256(records.tobytes()).hexdigest()}
    starts = range(0, len(contents), rows_a_block)
    blocks = [range(len(contents))[start : start + rows_a_block] for start in starts]
    block_lengths = [int(records["length"][block.start : block.stop].sum()) for block in blocks]
    found = store.find(key.kind, whole_key, key.dtype, block_lengths)
    if found is not None:
        return found
    # Mapped now: making room for the new entry may remove an old one, whose rows stay readable.
    sources = [source for each in (key, wider) if each is not None for source in _sources(store, each)]

    def compute_blocks(numbers: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """The blocks with these numbers, each of the key's dtype and shape (elements,)."""
        wanted = [row for number in numbers for row in blocks[number]]
        known = _known_rows(records, wanted, sources, np.dtype(key.dtype))
        computed = compute([row for row in wanted if row not in known])
        take = _taker(computed)
        for number in numbers:
            rows = (known[row]() if row in known else take(lengths[row]) for row in blocks[number])
            yield np.concatenate([row.astype(key.dtype, copy=False) for row in rows])
        if any(True for _ in computed):  # also lets it finish, as it reports its progress after each yield
            raise AssertionError("more rows than were asked for")

    return store.get_or_compute(
        key.kind, whole_key, key.dtype, block_lengths, compute_blocks, title, waiting,
        about={"family": key.family, "rows_a_block": rows_a_block}, beside={ROWS: records.tobytes()},
    )  # fmt: skip


def _taker(arrays: Iterator[npt.NDArray[Any]]) -> Callable[[int], npt.NDArray[Any]]:
    """A function that takes the next row of so many elements from a stream of arrays."""
    held: npt.NDArray[Any] = np.empty(0)

    def take(count: int) -> npt.NDArray[Any]:
        """The next row, of any dtype and shape (count,)."""
        nonlocal held
        if count and not held.size:
            held = next(arrays).reshape(-1)
        row, held = held[:count], held[count:]
        return row

    return take


@dataclass
class _Source:
    """The entry of another list.

    Attributes:
        records: content and length of each row.
        data: the rows, one after the other.
        blocks: checksum of each block as it was written; 0: not written.
        rows_a_block: number of rows in a block.
        sound: whether a block is as it was written, by number, as far as that was asked.
    """

    records: npt.NDArray[Any]
    data: npt.NDArray[Any]
    blocks: npt.NDArray[np.uint64]
    rows_a_block: int
    sound: dict[int, bool] = field(default_factory=dict)

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """int64 (N,), number of elements up to the end of each row."""
        return np.cumsum(self.records["length"])

    @cached_property
    def by_content(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Numbers of the rows in the order of their contents' first words, int64 (N,), and these words, uint64 (N,)."""
        order = np.argsort(self.records["content"][:, 0], kind="stable")
        return order, self.records["content"][order, 0]

    def row(self, number: int) -> npt.NDArray[Any]:
        """One row, of the entry's dtype and shape (elements,)."""
        end = int(self.ends[number])
        return self.data[end - int(self.records["length"][number]) : end]

    def is_usable(self, number: int, dtype: np.dtype[Any]) -> bool:
        """Whether a row's block is as it was written, and `dtype` can represent it."""
        block = number // self.rows_a_block
        if block not in self.sound:
            first, last = block * self.rows_a_block, min(len(self.records), (block + 1) * self.rows_a_block) - 1
            start = int(self.ends[first] - self.records["length"][first])
            values = self.data[start : int(self.ends[last])]
            recorded = int(self.blocks[block])
            self.sound[block] = recorded != 0 and recorded == WRITTEN + zlib.crc32(values.data)
            if dtype != values.dtype and self.sound[block]:
                self.sound[block] = not bool((np.abs(values) > np.finfo(dtype).max).any())
        return self.sound[block]


def _known_rows(
    records: npt.NDArray[Any], wanted: Sequence[int], sources: Sequence[_Source], dtype: np.dtype[Any]
) -> dict[int, Callable[[], npt.NDArray[Any]]]:
    """A function that returns the row, for each wanted row that one of the sources has."""
    known: dict[int, Callable[[], npt.NDArray[Any]]] = {}
    rows = np.array(wanted, dtype=np.int64)
    rows = rows[records["content"][rows].any(axis=1)]
    for source in sources:
        order, first_words = source.by_content
        places = np.searchsorted(first_words, records["content"][rows, 0]).clip(max=len(order) - 1)
        numbers = order[places]
        same = (source.records["content"][numbers] == records["content"][rows]).all(axis=1)
        same &= source.records["length"][numbers] == records["length"][rows]
        for row, number in zip(rows[same].tolist(), numbers[same].tolist(), strict=True):
            if source.is_usable(number, dtype):
                known[row] = lambda source=source, number=number: source.row(number)  # type: ignore[misc]
        rows = np.array([row for row in rows.tolist() if row not in known], dtype=np.int64)
        if not len(rows):
            break
    return known


def _sources(store: ArrayCache, key: RowKey) -> list[_Source]:
    """The entries of a family that can be read, the most recently used first."""
    found = []
    for folder in store.folders_of(key.kind, key.family):
        with suppress(OSError, ValueError, KeyError):  # another process may be removing it
            found.append(_read(folder, np.dtype(key.dtype)))
    return found


def _read(folder: Path, dtype: np.dtype[Any]) -> _Source:
    """One entry.

    Raises:
        OSError, ValueError, KeyError: files that are missing or of another size.
    """
    described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    rows_a_block, encoded = int(described["rows_a_block"]), (folder / ROWS).read_bytes()
    if hashlib.sha256(encoded).hexdigest() != described["key"]["rows"]:
        raise ValueError("its digests are damaged")
    records = np.frombuffer(encoded, dtype=_RECORD)
    blocks = np.fromfile(folder / BLOCKS, dtype=np.uint64)
    elements = int(records["length"].sum())
    data = np.memmap(folder / DATA, dtype=dtype, mode="r") if elements else np.zeros(0, dtype=dtype)
    if len(data) != elements or not len(records) or len(blocks) != -(-len(records) // rows_a_block):
        raise ValueError("its files do not fit each other")
    return _Source(records, data, blocks, rows_a_block)
