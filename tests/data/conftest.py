"""A file server that can cut its answers short."""

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lensmith.data.download import RemoteFile


class FileServer:
    """Serves `files` on 127.0.0.1, honours Range, and keeps what it was asked for.

    Attributes:
        files: name → content.
        cuts: name → bytes after which each of the next answers is cut off, one an answer.
        ranges: whether Range is honoured.
        asked: name and Range header of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: dict[str, list[int]] = {}
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name, wanted = self.path.lstrip("/"), self.headers.get("Range")
                server.asked.append((name, wanted))
                if name not in server.files:
                    self.send_error(404)
                    return
                content = server.files[name]
                start = int(re.findall(r"\d+", wanted)[0]) if wanted and server.ranges else 0
                if start >= len(content) > 0:
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                cuts = server.cuts.get(name)
                self.wfile.write(content[start:][: cuts.pop(0) if cuts else None])

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def offer(self, name: str, content: bytes) -> RemoteFile:
        """Serve a file; returns its address with the right hash."""
        self.files[name] = content
        return RemoteFile(f"http://127.0.0.1:{self._http.server_port}/{name}", hashlib.md5(content).hexdigest())

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = FileServer()
    yield running
    running.close()
