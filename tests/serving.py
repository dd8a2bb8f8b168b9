"""A folder, or another server, over real HTTP on loopback, by a server that fails when it is told to."""

from __future__ import annotations

import http.client
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
    """A verb and what it was asked for, when, and what was given in its place."""

    path: str
    seconds: float
    fault: Fault | None


class Server(ThreadingHTTPServer):
    """Gives the files of a folder, or what the server at a port gives; ``log`` has all requests since `fail`."""

    daemon_threads = True

    def __init__(self, behind: Path | int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = behind
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
        """From now on give ``fault`` (None: the file) to the ``at``-th request whose verb and path hold ``within``.

        ``lasting``: and every later one that is the same.  ``on_strike`` is called before the first.
        """
        self.log.clear()
        self._fault, self._left, self._within, self._lasting = fault, at, within, lasting
        self._on_strike, self._struck = on_strike, "" if at else "never"

    def asked(self, path: str) -> Fault | None:
        """What this request for a file gets in its place."""
        with self._lock:
            self._left -= self._within in path
            first = self._left == 0 and not self._struck
            if first:
                self._on_strike()
                self._struck = path
            fault = self._fault if first or (self._lasting and path == self._struck) else None
            self.log.append(Request(path, time.monotonic(), fault))
            return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are a part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Any verb: what is behind gives the answer, the fault may change it."""
        path = self.path.lstrip("/")
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.asked(f"{self.command} {path}")
        if fault == "reset":  # closed with no time to linger: no end of the data but an error
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault == "silent":
            self.server.closing.wait()
        if fault in ("reset", "silent"):
            self.close_connection = True
            return
        status, headers, body = self._behind(path, sent) if not isinstance(fault, int) else (fault, {}, b"")
        if fault == "damaged" and body:
            body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault == "short" else body)
        self.close_connection = self.close_connection or fault == "short"

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _behind(self, path: str, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body without a fault."""
        behind = self.server.behind
        if isinstance(behind, Path):
            file = behind / path
            return (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"")
        connection = http.client.HTTPConnection("127.0.0.1", behind, timeout=60)
        try:
            # The headers as they are: a signature covers the host's name, too.
            connection.request(self.command, self.path, sent, dict(self.headers))
            answer = connection.getresponse()
            whole = {
                n: v for n, v in answer.getheaders() if n.lower() not in ("transfer-encoding", "connection")
            }
            return answer.status, whole, answer.read()
        except OSError:
            return 503, {}, b""
        finally:
            connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the log is what tests ask about."""


@contextmanager
def serving(behind: Path | int) -> Iterator[Server]:
    """A server of a folder or before a port, for as long as the context."""
    server = Server(behind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
