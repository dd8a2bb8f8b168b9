"""A folder over real HTTP on loopback, by a server that fails when it is told to."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

# What a request gets in place of the file: an HTTP status, or a connection reset, one that stays silent,
# a body cut short, one with a bit flipped.
Fault = int | str


class Request(NamedTuple):
    """A file that was asked for, when, and what was given in its place."""

    path: str
    seconds: float
    fault: Fault | None


class Server(ThreadingHTTPServer):
    """Gives the files of a folder; ``log`` has every request since `fail`."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.log: list[Request] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self.fail(None)

    def fail(
        self,
        fault: Fault | None,
        at: int = 0,
        within: str = "",
        lasting: bool = False,
        on_strike: Callable[[], None] = lambda: None,
    ) -> None:
        """From now on fail the ``at``-th request for a file whose path holds ``within``.

        ``lasting``: and every later one for the same file.  ``on_strike`` is called before the first.
        """
        self.log.clear()
        self._fault, self._left, self._within, self._lasting = fault, at, within, lasting
        self._on_strike, self._struck = on_strike, ""

    def asked(self, path: str) -> Fault | None:
        """What this request for a file gets in its place."""
        with self._lock:
            fault = None
            if self._within in path:
                self._left -= 1
            if self._fault is not None and (
                (self._left == 0 and not self._struck) or (self._lasting and path == self._struck)
            ):
                fault = self._fault
                if not self._struck:
                    self._on_strike()
                self._struck = path
            self.log.append(Request(path, time.monotonic(), fault))
            return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are a part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        file = self.server.folder / path
        fault = self.server.asked(path)
        if fault is None and not file.is_file():
            fault = 404
        if isinstance(fault, int):
            self._answer(b"", fault)
            return
        if fault is not None:
            self.close_connection = True
        if fault == "reset":  # closed with no time to linger: no end of the data but an error
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault == "silent":
            self.server.closing.wait()
        else:
            body = bytearray(file.read_bytes())
            if fault == "damaged":
                body[len(body) // 2] ^= 1
            self._answer(bytes(body), cut=len(body) // 2 if fault == "short" else None)

    do_HEAD = do_GET

    def _answer(self, body: bytes, status: int = 200, cut: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the log is what tests ask about."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server of the folder, for as long as the context."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
