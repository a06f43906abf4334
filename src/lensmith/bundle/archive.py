"""Packing a bundle as one zip file, and safe unpacking: the table of contents is checked before a byte is written.

A zip may come from anywhere, so zip bombs, links and names that lead out of the folder are refused. The unpacked folder
gets its name only when it is whole.
"""

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
"""Most entries of a zip; a bundle with every engine and format has some tens of files."""

MAX_BYTES = 32 << 30
"""Most bytes unpacked: a billion weights in every engine and format have 25 GB, timm's largest backbone 27 in fp32."""

MAX_RATIO, RATIO_FROM_BYTES = 20, 256 << 20
"""Largest ratio of unpacked to packed size, for zips above so many bytes unpacked; a smaller bomb does no harm. Weights
hardly shrink: 1.1 times for fp32, 1.2 to 1.5 for int8, 1.7 for fp32 rounded to bf16. Bombs grow 1,000 times."""

MAX_NAME_BYTES = 200
"""Longest name of a file: Windows takes paths of 260 characters, and the cache's folder comes before the name."""

DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
"""Exceptions of zipfile for damaged files, besides OSError. Its NotImplementedError is a RuntimeError."""


def unsafe(name: str) -> str:
    """Reason why a file name must not be used below a bundle's folder, as a clause after "it"; empty if it may.

    A name that is harmless on one system may lead elsewhere on another, so the rules of all systems apply everywhere.
    """
    if not name or "\0" in name:
        return "is no file name"
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if name.startswith("/") or PureWindowsPath(name).drive:
        return "is an absolute path"
    if "\\" in name:
        return "has a backslash in it"
    return "leads out of the folder" if ".." in PurePosixPath(name).parts else ""


def pack(folder: Path, names: Iterable[str], path: Path) -> Path:
    """Write files of a folder as one zip, whole or not at all."""
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, name)
    return path


def holds(path: Path, name: str) -> bool:
    """Whether there is a zip at `path` with an entry of that name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return name in archive.namelist()
    except (*DAMAGE, OSError):
        return False


def unpack(packed: Path, target: Path, marker: str) -> Path:
    """Unpack a zip as the folder `target`, whole or not at all, unless the folder exists.

    Args:
        packed: the zip file.
        target: folder to make, named after the zip's hash, so that an existing one has the same content.
        marker: file by which the bundle is found: at the top, or in one folder there, as when somebody zips the folder
            by hand. Only files beside and below it are unpacked.

    Raises:
        BundleError: no zip, a damaged one, one without a bundle, or entries that no bundle has: they would be outside
            the folder, are there twice, are links, are encrypted, are too many, or grow too large.
        OutputError: the disk has no room.
    """
    if target.is_dir():
        return target
    try:
        with zipfile.ZipFile(packed) as archive:
            _require_harmless(packed, archive.infolist())
            top = _bundle_root(packed, archive.infolist(), marker)
            wanted = [entry for entry in archive.infolist() if top in PurePosixPath(entry.filename).parents]
            with staging_directory(target) as staging:
                _require_room(packed, target.parent, sum(entry.file_size for entry in wanted))
                archive.extractall(staging, wanted)
                _rename_unless_there(staging / top, target)
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # seeking to an impossible offset
            raise
        raise BundleError(
            f"A bundle, a folder or a whole zip, was expected at {packed}.",
            f"It cannot be unpacked ({first_line(error)}).",
            "Copy the bundle again, or export it again with `lensmith export RUN`.",
        ) from error
    return target


def _require_harmless(packed: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse a zip with entries that no bundle has.

    Sizes are those of the table of contents. They may be forged, but without effect: zipfile reads no more of an entry
    than that size, and then finds the checksum wrong.
    """
    if len(entries) > MAX_ENTRIES:
        raise _refusal(packed, f"It has {len(entries):,} entries, and {MAX_ENTRIES:,} are allowed")
    seen: set[PurePosixPath] = set()
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if problem := _problem(entry) or ("is there twice" if path in seen else ""):
            raise _refusal(packed, f"Its entry {_quoted(entry)} {problem}")
        seen.add(path)
    files = {PurePosixPath(entry.filename) for entry in entries if not entry.is_dir()}
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
    """Problem of one entry, as a clause after its name; empty without a problem."""
    # zipfile cuts a name at a null byte and, on Windows, converts backslashes, so the original name is checked as well.
    if problem := unsafe(entry.orig_filename) or unsafe(entry.filename):
        return problem
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the writing system has no file modes
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is neither a file nor a folder"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    # Other decompressors have no limit, and may expand one chunk to gigabytes.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is neither stored nor deflated"
    return ""


def _quoted(entry: zipfile.ZipInfo) -> str:
    """An entry's name, quoted and escaped, as it may contain control sequences for a terminal."""
    return repr(entry.orig_filename[:MAX_NAME_BYTES])


def _refusal(packed: Path, problem: str) -> BundleError:
    return BundleError(
        f"A zip with nothing but a bundle's files was expected at {packed}.",
        f"{problem}.",
        "Do not trust it: get the bundle again from where it was made, or zip its folder again.",
    )


def _bundle_root(packed: Path, entries: list[zipfile.ZipInfo], marker: str) -> PurePosixPath:
    """The folder in the zip that has the marker."""
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


def _rename_unless_there(folder: Path, target: Path) -> None:
    """Rename an unpacked folder to `target`, unless another process was quicker."""
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
