"""An HTTP server on loopback that serves ranges of files, counts them, and fails when it is told to."""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Traffic:
    """What the server was asked for and what it does: `failures` are statuses for the next requests, in order.

    `always` is the status of every request, 0 for none; `cuts` is how many of the next ranges beyond `cut_from` end in
    the middle.
    """

    requests: int = 0
    ranges: int = 0
    bytes_sent: int = 0
    names: set[str] = field(default_factory=set)
    failures: list[int] = field(default_factory=list)
    always: int = 0
    cuts: int = 0
    cut_from: int = 100_000


@dataclass(frozen=True)
class RangeServer:
    """Where the server listens, and what it has seen."""

    url: str
    traffic: Traffic


@contextmanager
def serve(folder: Path) -> Iterator[RangeServer]:
    """Serve the files of a folder until the block ends."""
    traffic = Traffic()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder, traffic))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        # GDAL remembers what it heard of an address: no two servers may have the same
        yield RangeServer(f"http://127.0.0.1:{server.server_port}/{uuid.uuid4().hex}", traffic)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(folder: Path, traffic: Traffic) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Ranges(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, send_body: bool) -> None:
            name = self.path.split("?")[0].split("/", 2)[2]
            with lock:
                traffic.requests += 1
                traffic.names.add(name)
                status = traffic.always or (traffic.failures.pop(0) if traffic.failures else 0)
            file = folder / name
            if status or not file.is_file():
                self._refuse(status or 404)
                return
            content = file.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first = int(asked[1]) if asked else 0
            last = min(int(asked[2]) if asked and asked[2] else len(content) - 1, len(content) - 1)
            if first > last:
                self._refuse(416)
                return
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()[:16]}"')
            self.send_header("Content-Length", str(last + 1 - first))
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            if send_body:
                self._send(content[first : last + 1], first)

        def _send(self, body: bytes, first: int) -> None:
            with lock:
                traffic.ranges += 1
                cut = traffic.cuts > 0 and first >= traffic.cut_from
                traffic.cuts -= cut
                body = body[: len(body) // 2] if cut else body
                traffic.bytes_sent += len(body)
            try:
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # GDAL read the head of the file and hung up
            if cut:
                self.close_connection = True

        def _refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Ranges
