"""What swarmcg says of its bots, in systemd's journal: ``journalctl SWARMCG_BOT=ID`` shows it.

The native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram an entry, a field a line; a value with a
newline goes with its length, so that any bytes pass. What is longer than a datagram goes by a sealed memory file.
"""

import fcntl
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any, Final

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Journald", "about", "encode", "speak", "stream"]

_SOCKET: Final = "/run/systemd/journal/socket"
_STREAM: Final = "/run/systemd/journal/stdout"
_LENGTH: Final = struct.Struct("<Q")
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_SEND_S: Final = 1
"""A journal that takes nothing in holds nobody up for longer, and only once: then nobody waits for it any more, until
it takes something in again.
"""
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_BOT: Final = "swarmcg_bot"
_INCARNATION: Final = "swarmcg_incarnation"


def about(bot_id: str, incarnation: str) -> dict[str, str]:
    """The ``extra`` of a log record that is about this bot."""
    return {_BOT: bot_id, _INCARNATION: incarnation}


def encode(fields: Mapping[str, str]) -> bytes:
    """One entry. Names are upper case; values may hold anything, surrogate escapes stand for their bytes."""
    return b"".join(_field(name.encode(), os.fsencode(value)) for name, value in fields.items())


def _field(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return name + b"\n" + _LENGTH.pack(len(value)) + value + b"\n"
    return name + b"=" + value + b"\n"


class Journald(logging.Handler):
    """Sends records to the journal. One that it refuses is lost: reports do not go this way."""

    def __init__(self, path: str = _SOCKET) -> None:
        super().__init__(logging.INFO)
        self._socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The kernel waits for room in the taker's queue. A timeout of Python's polls our own socket, which always has
        # room, and so spins.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_S, 0))
        self._how = 0
        self._path: Final = path

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            self._send(encode(_fields(self.format(record), record)))
        except BlockingIOError:
            self._how = socket.MSG_DONTWAIT
        except OSError:
            pass
        else:
            self._how = 0

    def _send(self, entry: bytes) -> None:
        try:
            self._socket.sendto(entry, self._how, self._path)
        except OSError as e:
            if isinstance(e, BlockingIOError | FileNotFoundError | ConnectionRefusedError):
                raise
            self._send_file(entry)  # EMSGSIZE, or ENOBUFS

    def _send_file(self, entry: bytes) -> None:
        fd = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fd, "wb", closefd=False) as f:
                f.write(entry)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))
            self._socket.sendmsg([b""], [rights], self._how, self._path)
        finally:
            os.close(fd)

    def close(self) -> None:
        """See logging.Handler."""
        self._socket.close()
        super().close()


def _fields(message: str, record: logging.LogRecord) -> dict[str, str]:
    priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
    fields = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "swarmcg"}
    for name in (_BOT, _INCARNATION):
        value: Any = getattr(record, name, None)
        if value is not None:
            fields[name.upper()] = str(value)
    return fields


def speak() -> None:
    """Lets this process say in the journal what it does, where there is one; warnings also on standard error."""
    if not os.path.exists(_SOCKET):
        return
    logger = logging.getLogger("swarmcg")
    logger.setLevel(logging.INFO)
    warn = logging.StreamHandler()
    warn.setLevel(logging.WARNING)
    for handler in (Journald(), warn):
        logger.addHandler(handler)


def stream(identifier: str) -> int | None:
    """A descriptor whose lines go to the journal under this identifier (as systemd-cat(1)); None without a journal."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_SEND_S)
        connection.connect(_STREAM)
        connection.shutdown(socket.SHUT_RD)
        head = (identifier.replace("\n", " "), "", "6", "0", "0", "0", "0", "")
        connection.sendall("\n".join(head).encode())
        connection.settimeout(None)
    except OSError:
        connection.close()
        return None
    return connection.detach()
