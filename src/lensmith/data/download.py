"""Resumable download of one file, verified by its hash."""

import hashlib
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout, parse_url

from lensmith.core.progress import track
from lensmith.errors import DataError

TIMEOUT = Timeout(connect=5, read=30)
"""Seconds. A firewall may drop packets silently, and the next source should not wait long for that."""
MAX_EMPTY_ATTEMPTS = 3
"""Number of attempts in a row without a single byte after which the download fails."""
MIB = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        url: address of the file; its last part is the file's name.
        md5: hex digest that its publisher gives.
    """

    url: str
    md5: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


def download(remote: RemoteFile, folder: Path) -> Path:
    """Download the file to `folder`, unless it is there; an interrupted transfer resumes from NAME.partial.

    Raises:
        DataError: the server does not answer, has no such file, or sends another than expected.
    """
    target = folder / remote.name
    if target.exists() and _md5(target) == remote.md5:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{remote.name}.partial"
    resumed = partial.exists()
    _transfer(remote, partial)
    if resumed and _md5(partial) != remote.md5:  # the older half may have been of another file
        partial.unlink()
        _transfer(remote, partial)
    arrived = _md5(partial)
    if arrived != remote.md5:
        partial.unlink()
        raise DataError(
            f"A file with MD5 {remote.md5} was expected from {remote.url}.",
            f"One with MD5 {arrived} arrived, and was deleted.",
            "Something between here and the server changes files, or the server has a new version: try elsewhere.",
        )
    partial.replace(target)
    return target


def _transfer(remote: RemoteFile, partial: Path) -> None:
    pool = _pool(remote.url)
    empty_attempts = 0
    while True:
        before = _size(partial)
        try:
            return _append(pool, remote, partial)
        except HTTPError as error:
            empty_attempts = 0 if _size(partial) > before else empty_attempts + 1
            # urllib3 itself has retried connections that were never made.
            if empty_attempts >= MAX_EMPTY_ATTEMPTS or isinstance(error, urllib3.exceptions.MaxRetryError):
                raise DataError(
                    f"A file was expected from {remote.url}.",
                    f"The transfer failed ({_reason(error)}); {_size(partial):,} bytes of it are on disk.",
                    "Check the network (a proxy is taken from the environment) and run the same command again, "
                    f"or put the file into {partial.parent} by other means.",
                ) from error
            time.sleep(0.2 * empty_attempts)


def _append(pool: urllib3.PoolManager, remote: RemoteFile, partial: Path) -> None:
    have = _size(partial)
    # Without "identity" a server may compress, and then neither length nor hash would be the file's.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    retries = Retry(connect=1, redirect=5, status=2, other=0, read=0, backoff_factor=0.5, status_forcelist=[429, 503])
    with pool.request("GET", remote.url, headers=headers, retries=retries, preload_content=False) as response:
        if response.status == 416:  # nothing is left to send: the hash decides
            return
        if response.status not in (200, 206):
            raise DataError(
                f"A file was expected from {remote.url}.",
                f"The server answered {response.status} {response.reason or ''}".rstrip() + ".",
                "The address may have moved; try again later, or update lensmith.",
            )
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        resumes = response.status == 206 and start is not None and int(start[1]) == have
        left = math.ceil(int(response.headers.get("Content-Length", 0)) / MIB)
        with partial.open("ab" if resumes else "wb") as file:
            for _ in track(_write_chunks(response, file), f"{remote.name} (MiB)", left or None):
                pass


def _write_chunks(response: urllib3.BaseHTTPResponse, file: BinaryIO) -> Iterator[None]:
    """Write the response to the file; yields once for each MiB, for the progress bar."""
    done = 0
    for block in response.stream(1 << 16, decode_content=False):
        file.write(block)
        before, done = done, done + len(block)
        yield from (None for _ in range(done // MIB - before // MIB))


def _pool(url: str) -> urllib3.PoolManager:
    target = parse_url(url)
    proxy = getproxies().get(target.scheme or "")
    if not proxy or proxy_bypass(target.host or ""):
        return urllib3.PoolManager(timeout=TIMEOUT)
    auth = parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=auth) if auth else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, timeout=TIMEOUT)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _reason(error: HTTPError) -> str:
    cause: object = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
    text = str(cause.args[0]) if isinstance(cause, HTTPError) and cause.args else str(cause)
    return re.sub(r"^\w+\([^)]*\): ", "", text) or type(cause).__name__
