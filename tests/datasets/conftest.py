"""Fixtures for the tests of data sources: tiny radiographs, zips, an unreliable server."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """Makes small PNG files as bytes, different for each number."""

    def draw(number: int) -> bytes:
        pixels = np.full((6, 5), number % 251, np.uint8)
        pixels[0, 0] = number // 251 % 251
        return cv2.imencode(".png", pixels)[1].tobytes()

    return draw


@pytest.fixture(scope="session")
def write_zip() -> Callable[[Path, Mapping[str, bytes | str]], bytes]:
    """Writes a zip with the given members and returns its bytes."""

    def write(path: Path, members: Mapping[str, bytes | str]) -> bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path.read_bytes()

    return write


class Server(ThreadingHTTPServer):
    """Serves ``files`` with ranges and tags, and cuts the connections listed in ``drops``.

    Attributes:
        files: Contents by path, without the leading slash.
        drops: For each coming response with content, the bytes after which it is cut.
        asked: The path and the Range header of every request.
        ranges: False ignores Range headers, as some servers do.
        tags: False sends neither ETag nor Last-Modified.
        status: For each coming request, an HTTP status to respond with instead.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.drops: list[int] = []
        self.asked: list[tuple[str, str | None]] = []
        self.ranges = True
        self.tags = True
        self.status: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        wanted = self.headers.get("Range")
        self.server.asked.append((name, wanted))
        if self.server.status:
            return self.send_error(self.server.status.pop(0))
        if name not in self.server.files:
            return self.send_error(404)
        content = self.server.files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        condition = self.headers.get("If-Range")
        start = 0
        if wanted and self.server.ranges and condition in (None, tag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if self.server.tags:
            self.send_header("ETag", tag)
        self.end_headers()
        rest = content[start:]
        self.wfile.write(rest[: self.server.drops.pop(0)] if self.server.drops else rest)
        self.close_connection = True
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    """A local server; its attributes set its files and its failures."""
    with Server() as running:
        Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()
