"""A transfer resumes where it was cut, and only the right file stays."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lensmith.data.download import RemoteFile, download
from lensmith.errors import DataError

if TYPE_CHECKING:
    from tests.data.conftest import FileServer

CONTENT = np.random.default_rng(0).bytes(1_000_000)


def test_a_complete_file_is_requested_only_once(server: FileServer, tmp_path: Path) -> None:
    remote = server.offer("set.tgz", CONTENT)
    assert download(remote, tmp_path / "cache").read_bytes() == CONTENT
    assert download(remote, tmp_path / "cache").read_bytes() == CONTENT
    assert server.asked == [("set.tgz", None)]
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["set.tgz"]


def test_a_connection_cut_twice_is_resumed_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    remote = server.offer("set.tgz", CONTENT)
    server.cuts["set.tgz"] = [400_000, 300_000]
    assert download(remote, tmp_path).read_bytes() == CONTENT
    starts = [int(wanted[6:-1]) for _, wanted in server.asked if wanted]
    assert len(starts) == 2
    assert 300_000 < starts[0] <= 400_000 < starts[1] <= 700_000


@pytest.mark.parametrize(
    ("name", "content", "requests"),
    [
        ("set.tgz.partial", CONTENT[:500_000], ["bytes=500000-"]),
        ("set.tgz.partial", CONTENT, ["bytes=1000000-"]),  # whole already
        ("set.tgz.partial", b"another version" * 1000, ["bytes=15000-", None]),
        ("set.tgz", CONTENT[:-1], [None]),
    ],
)
def test_what_an_earlier_call_left_is_resumed_or_replaced(
    server: FileServer, tmp_path: Path, name: str, content: bytes, requests: list[str | None]
) -> None:
    remote = server.offer("set.tgz", CONTENT)
    (tmp_path / name).write_bytes(content)
    assert download(remote, tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == requests


def test_a_server_without_ranges_starts_from_the_beginning(server: FileServer, tmp_path: Path) -> None:
    remote = server.offer("set.tgz", CONTENT)
    server.ranges = False
    server.cuts["set.tgz"] = [400_000]
    assert download(remote, tmp_path).read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_no_file_is_left(server: FileServer, tmp_path: Path) -> None:
    remote = replace(server.offer("set.tgz", CONTENT), md5="0" * 32)
    with pytest.raises(DataError, match=f"MD5 {'0' * 32}"):
        download(remote, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_sends_nothing_fails_the_download_and_the_partial_file_stays(
    server: FileServer, tmp_path: Path
) -> None:
    remote = server.offer("set.tgz", CONTENT)
    server.cuts["set.tgz"] = [400_000, 0, 0, 0]
    with pytest.raises(DataError):
        download(remote, tmp_path)
    assert CONTENT.startswith((tmp_path / "set.tgz.partial").read_bytes())
    assert (tmp_path / "set.tgz.partial").stat().st_size > 300_000


def test_a_missing_file_and_a_refused_connection_are_reported(server: FileServer, tmp_path: Path) -> None:
    gone = replace(server.offer("set.tgz", CONTENT), url=server.offer("x", b"").url + "/gone.tgz")
    with pytest.raises(DataError, match="404"):
        download(gone, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = RemoteFile(f"http://127.0.0.1:{free.getsockname()[1]}/set.tgz", "0")
        with pytest.raises(DataError, match="Connection refused"):
            download(refused, tmp_path)


def test_a_proxy_of_the_environment_is_used(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = server.offer("set.tgz", CONTENT)
    monkeypatch.setenv("http_proxy", remote.url.rpartition("/")[0])
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(DataError, match="404"):  # the server, asked as a proxy, knows no such name
        download(RemoteFile("http://nowhere.invalid/set.tgz", "0"), tmp_path)
    assert server.asked == [("http://nowhere.invalid/set.tgz", None)]
