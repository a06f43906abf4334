"""A bundle as one zip file: packed, and unpacked once its table of contents was found harmless.

A zip may come from anywhere. Everything that can be said from its table of contents is said before a byte is written,
and what is unpacked gets its name only when it is whole.
"""

from __future__ import annotations

import errno
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from lensmith.core.files import atomic_path, staging_directory
from lensmith.core.text import first_line
from lensmith.errors import BundleError, OutputError

MAX_ENTRIES = 1000
"""A bundle with every engine and format has some tens of files."""

MAX_BYTES = 32 << 30
"""Unpacked: a backbone of a billion weights in every engine and format has 25 GB, the largest of timm's 27 in fp32."""

MAX_RATIO, RATIO_FROM_BYTES = 20, 256 << 20
"""Unpacked against packed, of what is larger than so many bytes unpacked; below, a bomb does no harm. Weights hardly
shrink: measured were 1.1 times for fp32, 1.2 to 1.5 for int8, 1.7 for fp32 rounded to bf16. Bombs grow 1,000 times."""

MAX_NAME_BYTES = 200
"""Windows takes paths of 260 characters, and the cache's own folder comes before a name."""

DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
"""What zipfile raises for damaged files, beside OSError. Its NotImplementedError is a RuntimeError."""


def unsafe(name: str) -> str:
    """Why a file name must not be used below a bundle's folder, in words after "it"; empty if it may.

    A name that is harmless on this system may lead elsewhere on the next, so the rules of all of them hold everywhere.
    """
    if not name or "\0" in name:
        return "is no file name"
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if name.startswith("/") or PureWindowsPath(name).drive:
        return "is an absolute path"
    if "\\" in name:
        return "has a backslash in it"
    return "climbs out of the folder" if ".." in PurePosixPath(name).parts else ""


def pack(folder: Path, names: Iterable[str], path: Path) -> Path:
    """Write files of a folder, in the order of their names, as one zip at `path`; a finished file or none."""
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, name)
    return path


def holds(path: Path, name: str) -> bool:
    """Is there a zip at `path` with an entry of that name?"""
    try:
        with zipfile.ZipFile(path) as archive:
            return name in archive.namelist()
    except (*DAMAGE, OSError):
        return False


def unpack(packed: Path, target: Path, marker: str) -> Path:
    """Unpack a zip as the folder `target`, unless that is there already; a finished folder or none.

    Args:
        packed: the zip.
        target: where the folder goes; named after the zip's content, so that what is there is the same.
        marker: the file by which the bundle is found: at the top, or in one folder there, as it is when somebody zips
            the folder by hand. Only what lies beside and below it is unpacked.

    Raises:
        BundleError: no zip, a damaged one, one that holds no bundle, or entries that no bundle has: they would lie
            elsewhere, are there twice, are links, are encrypted, are too many, or grow too large.
        OutputError: the disk has no room for it.
    """
    if target.is_dir():
        return target
    try:
        with zipfile.ZipFile(packed) as archive:
            _look_over(packed, archive.infolist())
            top = _top(packed, archive.infolist(), marker)
            wanted = [entry for entry in archive.infolist() if top in PurePosixPath(entry.filename).parents]
            with staging_directory(target) as staging:
                _require_room(packed, target.parent, sum(entry.file_size for entry in wanted))
                archive.extractall(staging, wanted)
                _name(staging / top, target)
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which comes of a place that no file has
            raise
        raise BundleError(
            f"A bundle, a folder or a whole zip, was expected at {packed}.",
            f"It cannot be unpacked ({first_line(error)}).",
            "Copy the bundle again, or export it again with `lensmith export RUN`.",
        ) from error
    return target


def _look_over(packed: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse what no bundle has.

    Sizes are what the table of contents says. It may lie, but never to its advantage: zipfile reads no more of an entry
    than its size there, and then finds the checksum wrong.
    """
    if len(entries) > MAX_ENTRIES:
        raise _refusal(packed, f"It has {len(entries):,} entries, and {MAX_ENTRIES:,} are allowed")
    files: set[PurePosixPath] = set()
    seen: set[PurePosixPath] = set()
    for entry in entries:
        path = PurePosixPath(entry.filename)
        problem = _problem(entry) or ("is there twice" if path in seen else "")
        if problem:
            raise _refusal(packed, f"Its entry {_quoted(entry)} {problem}")
        seen.add(path)
        if not entry.is_dir():
            files.add(path)
    for entry in entries:
        if not files.isdisjoint(PurePosixPath(entry.filename).parents):
            raise _refusal(packed, f"Its entry {_quoted(entry)} lies below a file")
    unpacked, size = sum(entry.file_size for entry in entries), packed.stat().st_size
    if unpacked > MAX_BYTES:
        raise _refusal(packed, f"Unpacked it has {unpacked / 1e9:,.1f} GB, and {MAX_BYTES / 1e9:.1f} are allowed")
    if unpacked > max(RATIO_FROM_BYTES, MAX_RATIO * size):
        growth = f"{unpacked / size:,.0f} times its size ({unpacked / 1e9:,.1f} GB)"
        raise _refusal(packed, f"Unpacked it has {growth}, and {MAX_RATIO} times are allowed")


def _problem(entry: zipfile.ZipInfo) -> str:
    """What is wrong with one entry, in words after its name; empty if nothing."""
    # zipfile cuts a name at a null byte and, on Windows, turns its backslashes; so what stands there is judged, too.
    if problem := unsafe(entry.orig_filename) or unsafe(entry.filename):
        return problem
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the system that wrote it has no such thing
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is neither a file nor a folder"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    # The others' decompressors are given no limit, and may make gigabytes of one chunk that is read.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed otherwise than stored or deflated"
    return ""


def _quoted(entry: zipfile.ZipInfo) -> str:
    """Its name with quotes and escapes, since it may hold what a terminal obeys."""
    return repr(entry.orig_filename[:MAX_NAME_BYTES])


def _refusal(packed: Path, problem: str) -> BundleError:
    return BundleError(
        f"A zip with nothing but a bundle's files was expected at {packed}.",
        f"{problem}.",
        "Do not trust it: get the bundle again from where it was made, or zip its folder again.",
    )


def _top(packed: Path, entries: list[zipfile.ZipInfo], marker: str) -> PurePosixPath:
    """The folder in the zip that is the bundle."""
    paths = {PurePosixPath(entry.filename) for entry in entries if not entry.is_dir()}
    found = {path.parent for path in paths if path.name == marker and len(path.parts) <= 2}
    if PurePosixPath() in found:
        return PurePosixPath()
    if len(found) == 1:
        return found.pop()
    raise BundleError(
        f"A bundle (a folder or zip with {marker}) was expected at {packed}.",
        f"It holds {f'{len(found)} of them' if found else f'no {marker}'}.",
        "Zip the `bundle` folder of a run, or pack it with `lensmith export RUN --out NAME.zip`.",
    )


def _require_room(packed: Path, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{needed / 1e6:,.1f} MB of room to unpack {packed} were expected in {folder}.",
            f"{free / 1e6:,.1f} MB are free.",
            "Free some space, or name a folder on another disk in LENSMITH_CACHE.",
        )


def _name(folder: Path, target: Path) -> None:
    """Give an unpacked folder its name, unless another process was quicker."""
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
