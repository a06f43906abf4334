"""Atomic writes of files and replacement of directories; hashes and stamps of files.

A reader never sees half a file, two writers never share a temporary name, and an error leaves nothing behind. The
content reaches the disk before the name does, so a power cut leaves the old file or the new one.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lensmith.errors import OutputError

MEMORY = Path("/dev/shm")
"""Folder of a file system in memory, on Linux."""


def atomic_write(path: Path, content: str | bytes, *, mode: int = 0o666, sync: bool = True) -> None:
    """Write a file whole or not at all, replacing an older one.

    Args:
        path: path of the file; its folder must exist.
        content: text, written as UTF-8 (names that are no UTF-8 unchanged), or bytes.
        mode: permission bits of the new file, less the process's umask.
        sync: whether to wait until the content is on disk, some milliseconds; without it a power cut may lose the file.

    Raises:
        OSError: a folder that is missing, read-only or full; the older file is then unchanged.
    """
    encoded = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
    with (
        atomic_path(path, sync=sync) as partial,
        os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file,
    ):
        file.write(encoded)


def atomic_write_all(contents: Mapping[Path, str | bytes]) -> None:
    """Write several files, as `atomic_write` does, once all of them are on disk under temporary names.

    Args:
        contents: path of each file → its content.

    Raises:
        OSError: a folder that is missing, read-only or full; all older files are then unchanged.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            encoded = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
            partial = stack.enter_context(atomic_path(path))
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                file.write(encoded)
                os.fsync(file.fileno())


@contextmanager
def atomic_path(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it takes the name `path` once the block ends without an error.

    The temporary name begins with a dot and ends in `.partial`, followed by the suffix of `path`, since writers choose
    formats by it. It has no more bytes than file systems allow (255), whatever the length of the name.

    Raises:
        OSError: a folder that is missing, read-only or full; then no partial file is left and `path` is unchanged.
    """
    ending = f".{os.getpid()}-{secrets.token_hex(4)}.partial{path.suffix[:16]}"
    beginning = os.fsencode(path.name)[: 254 - len(os.fsencode(ending))].decode(errors="ignore")
    partial = path.with_name(f".{beginning}{ending}")
    try:
        yield partial
        if sync:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


@contextmanager
def staging_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path`, for `replace_directory`; it is removed if the block does not use it up.

    Missing parents of `path` are made. The directory is readable by all, like one that `mkdir` makes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        staging.chmod(0o755)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def replace_directory(staging: Path, path: Path) -> None:
    """Rename a finished directory to `path`; an older directory of that name is removed afterwards.

    Raises:
        OSError: a rename that failed; `path` is then unchanged.
    """
    older = staging.with_name(staging.name + ".older")
    if path.exists():
        path.rename(older)
    try:
        staging.rename(path)
    except OSError:
        if older.exists():
            older.rename(path)
        raise
    sync_directory(path.parent)
    shutil.rmtree(older, ignore_errors=True)


def private_directory(path: Path) -> None:
    """Make a directory that only this user can enter, with its parents; an existing one of this user stays.

    Raises:
        OSError: there is no room or right to make it, or another user has made it or a link in its place.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(path))


def temporary_directory(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A new temporary directory; in memory where no disk may be written to, as in containers that are read-only.

    Raises:
        OutputError: there is no place for it.
    """
    try:
        return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        try:
            return tempfile.TemporaryDirectory(prefix=prefix, dir=MEMORY, ignore_cleanup_errors=True)
        except OSError:
            raise OutputError(
                "A folder for temporary files was expected.",
                f"The system reported: {error.strerror or error}.",
                "Name one that can be written to with the variable TMPDIR.",
            ) from error


def sync_directory(folder: Path) -> None:
    """Make names in a folder survive a power cut, if the system can (Windows cannot open folders)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stat_stamp(path: Path) -> str | None:
    """Size, times and inode of a file, as text that changes whenever its content does; None if there is no such file.

    The system itself sets the time of change (ctime), so a file that was replaced and got its old date also differs.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat for a million files
    except OSError:
        return None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
