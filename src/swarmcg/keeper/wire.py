"""Messages between swarmcg's own processes: one JSON object each, with descriptors, over a Unix stream
socket.

A message is four bytes of length and descriptor count, then the JSON text; its descriptors travel with its
first byte. Text that is no valid UTF-8 (an environment, a path) survives as JSON's surrogate escapes. Peers
are processes of the same user that share a socketpair, so what arrives is trusted to be well-formed; a peer
that vanishes is an ordinary end of file.
"""

import array
import errno
import json
import os
import socket
import struct
import sys

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

__all__ = ["Wire"]

_HEAD = struct.Struct("!I")
_SIZE_BITS = 26  # of the length; the upper six bits count the descriptors
_MOST_BYTES = (1 << _SIZE_BITS) - 1
_CONTROL = socket.CMSG_SPACE(63 * 4)
_CHUNK = 65536
_FLAGS = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT


class Wire:
    """One end of a connection. For one thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        connection.set_inheritable(False)  # one that came from a parent is inheritable: no bot may get it
        self._socket = connection
        self._bytes = bytearray()
        self._fds: list[int] = []
        self.ended = False

    def fileno(self) -> int:
        """The socket's descriptor, for polling."""
        return self._socket.fileno()

    def finish(self) -> None:
        """Says that nothing more will be sent; what the peer sends still arrives."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the connection and every descriptor that was received and not taken."""
        self.ended = True
        self._socket.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def send(self, message: "dict[str, Any]", fds: "Sequence[int]" = ()) -> None:
        """Sends the whole message, blocking while the peer's buffer is full. Raises BrokenPipeError when it
        is gone, and OSError with E2BIG, having sent nothing, for one that does not fit.
        """
        body = json.dumps(message).encode()
        if len(body) > _MOST_BYTES:
            raise OSError(errno.E2BIG, "the message is longer than 64 MiB")
        text = _HEAD.pack(len(body) | len(fds) << _SIZE_BITS) + body
        sent = socket.send_fds(self._socket, [text], list(fds)) if fds else 0
        if sent < len(text):  # once all is sent the peer may act on it, and be gone: nothing more may fail
            self._socket.sendall(text[sent:])

    def receive(self) -> "Iterator[tuple[dict[str, Any], list[int]]]":
        """Reads once, and yields every message that is complete by then with its descriptors.

        Never blocks: without data it yields nothing. Sets ``ended`` at the end of file.
        """
        self._fill()
        while len(self._bytes) >= _HEAD.size:
            (head,) = _HEAD.unpack_from(self._bytes)
            end, count = _HEAD.size + (head & _MOST_BYTES), head >> _SIZE_BITS
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_HEAD.size : end])
            del self._bytes[:end]
            fds, self._fds = self._fds[:count], self._fds[count:]
            if len(fds) < count:
                for fd in fds:
                    os.close(fd)
                raise OSError(errno.EMFILE, "descriptors of a message were lost: too many are open")
            yield json.loads(body), fds

    def _fill(self) -> None:
        try:
            data, controls, _, _ = self._socket.recvmsg(_CHUNK, _CONTROL, _FLAGS)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data, controls = b"", []
        for level, kind, payload in controls:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        self._bytes += data
        self.ended = not data
