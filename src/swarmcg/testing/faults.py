"""What can go wrong between a client and a server: each fault takes the place of an answer.

A fault is a function of the answer that would have been sent and the wire that it would have been sent over.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

__all__ = [
    "Fault",
    "Reply",
    "Wire",
    "cut",
    "drip",
    "endless",
    "half_a_zip",
    "redirect",
    "reset",
    "silence",
    "status",
    "wrong_length",
]


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}

    def head(self, length: int | None, *, keep: bool = False) -> bytes:
        """The status line and the headers, announcing a length or none, and with ``keep`` that the
        connection goes on.
        """
        connection = "keep-alive" if keep else "close"
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", f"Connection: {connection}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [] if length is None else [f"Content-Length: {length}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def encode(self, *, keep: bool = False) -> bytes:
        """The bytes that go over the wire."""
        return self.head(len(self.body), keep=keep) + self.body


class Wire(NamedTuple):
    """The connection, the event that the server is about to close, and whether the client may ask again."""

    connection: socket.socket
    closing: threading.Event
    keep: bool = False

    def send(self, data: bytes) -> bool:
        """Sends it; False when the client has gone."""
        with contextlib.suppress(OSError):
            self.connection.sendall(data)
            return True
        return False


Fault = Callable[[Reply, Wire], object]


def status(code: int) -> Fault:
    """Answers with this status."""
    return lambda _reply, wire: wire.send(Reply(code, b"a fault was asked for\n").encode())


def redirect(location: str) -> Fault:
    """Redirects to there."""
    return lambda _reply, wire: wire.send(Reply(302, headers={"Location": location}).encode())


def cut(kept: int) -> Fault:
    """Announces the whole body and breaks off after so many bytes of it."""
    return lambda reply, wire: wire.send(reply.head(len(reply.body)) + reply.body[:kept])


def half_a_zip(reply: Reply, wire: Wire) -> None:
    """Sends the first half of the body as if it were the whole."""
    wire.send(reply._replace(body=reply.body[: len(reply.body) // 2]).encode())


def wrong_length(difference: int) -> Fault:
    """Announces so many bytes more, or fewer, than are sent."""
    return lambda reply, wire: wire.send(reply.head(len(reply.body) + difference) + reply.body)


def drip(seconds: float = 1.0, *, head: bool = False) -> Fault:
    """Sends the body, or with ``head`` already the status line, one byte at a time."""

    def dripping(reply: Reply, wire: Wire) -> None:
        everything = reply.encode()
        rest = 0 if head else len(everything) - len(reply.body)
        alive = wire.send(everything[:rest])
        while alive and rest < len(everything) and not wire.closing.wait(seconds):
            alive = wire.send(everything[rest : rest + 1])
            rest += 1

    return dripping


def endless(reply: Reply, wire: Wire) -> None:
    """Sends a body without an announced length and without an end."""
    alive = wire.send(reply.head(None))
    while alive and not wire.closing.is_set():
        alive = wire.send(bytes(1 << 16))


def silence(_reply: Reply, wire: Wire) -> None:
    """Answers nothing, and keeps the connection until the server closes."""
    wire.closing.wait()


def reset(_reply: Reply, wire: Wire) -> None:
    """Resets the connection."""
    wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    wire.connection.close()


_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""Lingering for 0 seconds: close sends a reset."""
