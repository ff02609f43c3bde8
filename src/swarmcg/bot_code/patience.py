"""An opener of somebody else's, made to ask before each read how long it may take, and to read no more than a bound.

urllib passes a time-out on to the socket, where it starts anew with every byte: it bounds nothing in all. And
http.client believes a chunk's size of -1, for which it reads into memory all that comes.
"""

import copy
import functools
import http.client
import io
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import socket

__all__ = ["TooMuchError", "tamed"]

_AROUND: Final = 1 << 20
"""Bytes of one answer besides what is in it: http.client takes 100 headers of 64 KiB, real ones have a few hundred
bytes."""
_PER_CHUNK: Final = 8
"""The part of the bound that may come on top as sizes of chunks, of which real servers send some in 10,000."""

_OUR_OWN_WORK: Final = (
    urllib.request.HTTPRedirectHandler,
    urllib.request.FTPHandler,
    urllib.request.FileHandler,
    urllib.request.DataHandler,
)
"""What an opener does by default and this one must not: follow redirects, and open anything but http and
https."""


class TooMuchError(Exception):
    """One answer, headers and all, is beyond the bound; ``size`` is what has come so far."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size: Final = size


class _Bounds(NamedTuple):
    """How many seconds the next read may take, and how many bytes an answer may have in all."""

    patience: Callable[[], float]
    size: int


def tamed(
    base: urllib.request.OpenerDirector, patience: Callable[[], float], size: int
) -> urllib.request.OpenerDirector:
    """An opener with copies of the handlers of another, but without its redirects, and with patience while
    reading. An answer that has far more than ``size`` bytes raises TooMuchError while it is read, so that whatever
    http.client makes of it, that much at most is in memory.

    The copies share passwords, cookies and TLS contexts with the originals; the original stays as it is.
    """
    opener = urllib.request.OpenerDirector()
    bounds = _Bounds(patience, size + size // _PER_CHUNK + _AROUND)
    # typeshed does not know the list of handlers, which is there since Python 2.
    for original in base.handlers:  # type: ignore[attr-defined]
        if isinstance(original, _OUR_OWN_WORK):
            continue
        handler: Any = copy.copy(original)
        if isinstance(original, urllib.request.AbstractHTTPHandler):
            handler.do_open = functools.partial(_do_open, handler.do_open, bounds)
        opener.add_handler(handler)
    return opener


def _do_open(
    do_open: Callable[..., Any],
    bounds: _Bounds,
    connection_class: Callable[..., Any],
    *args: Any,
    **how: Any,
) -> Any:
    def connection(*where: Any, **parameters: Any) -> Any:
        made = connection_class(*where, **parameters)
        made.response_class = functools.partial(_PatientResponse, bounds)
        return made

    return do_open(connection, *args, **how)


class _PatientResponse(http.client.HTTPResponse):
    """A response that asks before each read, headers included, how long it may take.

    A time-out of the socket alone would start anew with every byte.
    """

    def __init__(self, bounds: _Bounds, sock: "socket.socket", *args: Any, **how: Any) -> None:
        super().__init__(sock, *args, **how)
        self.fp = io.BufferedReader(_PatientReader(bounds, sock, self.fp.detach()))


class _PatientReader(io.RawIOBase):
    def __init__(self, bounds: _Bounds, sock: "socket.socket", raw: Any) -> None:
        super().__init__()
        self._bounds: Final = bounds
        self._received = 0
        self._sock: Final = sock
        self._raw: Final = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._bounds.patience())
        size: int | None = self._raw.readinto(buffer)
        self._received += size or 0
        if self._received > self._bounds.size:
            raise TooMuchError(self._received)
        return size

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
