"""HTTP/1.1 for the embedded server: a thread a connection, connections that live on, and an end that leaves
nothing.
"""

import contextlib
import http.server
import socket
import threading
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from swarmcg.testing.faults import Wire

if TYPE_CHECKING:
    from email.message import Message

__all__ = ["Answer", "Listener", "Request"]

_MOST_BODY: Final = 128 << 20
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32


class Request(NamedTuple):
    """What a client asked; its body as it was before it was compressed for the way."""

    method: str
    target: str
    headers: "Message[str, str]"
    body: bytes


Answer = Callable[[Request, Wire], bool]
"""Sends an answer; False when the connection is of no use afterwards."""


class Listener(http.server.ThreadingHTTPServer):
    """Serves until it is ended, without looking up every now and then, and knows its open connections."""

    daemon_threads = False  # so that closing joins them
    request_queue_size = 128  # with the 5 of socketserver, many bots at once wait a second for a second SYN

    def __init__(self, address: tuple[str, int], answer: Answer) -> None:
        self.answer: Final = answer
        self.closing: Final = threading.Event()
        self._open: Final[set[socket.socket]] = set()
        self._open_lock: Final = threading.Lock()
        super().__init__(address, _Handler)

    def serve(self) -> None:
        """Blocks until :meth:`end` is called in another thread."""
        while not self.closing.is_set():
            self.handle_request()

    def end(self, serving: threading.Thread) -> None:
        """Ends every connection, the thread that serves, and the socket."""
        self.closing.set()
        with contextlib.suppress(OSError):  # wakes the loop; refused when it has ended already
            socket.create_connection(self.socket.getsockname(), timeout=1).close()
        serving.join()
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remembers the connection, for the end."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forgets it."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listener

    def _serve(self) -> None:
        body = self._body()
        if body is None:
            self.close_connection = True
            return
        request = Request(self.command, self.path, self.headers, body)
        wire = Wire(self.connection, self.server.closing, keep=not self.close_connection)
        if not self.server.answer(request, wire):
            self.close_connection = True

    def _body(self) -> bytes | None:
        """The whole body; None after an answer that says why it cannot be had."""
        length = self.headers.get("Content-Length") or "0"
        if "Transfer-Encoding" in self.headers:
            self.send_error(411)
        elif not (length.isascii() and length.isdigit()):
            self.send_error(400)
        elif int(length) > _MOST_BODY:
            self.send_error(413)
        else:
            return self._unpacked(self.rfile.read(int(length)))
        return None

    def _unpacked(self, body: bytes) -> bytes | None:
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        if encoding == "identity":
            return body
        if encoding not in {"gzip", "deflate"}:
            self.send_error(415)
            return None
        try:
            unpacked = zlib.decompressobj(_GZIP_OR_ZLIB).decompress(body, _MOST_BODY)
        except zlib.error:
            self.send_error(400)
            return None
        return unpacked

    do_GET = do_POST = _serve  # noqa: N815  so http.server finds them

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            super().handle()

    def log_message(self, *_: object) -> None:
        """Not on stderr: ``requests`` has it all."""
