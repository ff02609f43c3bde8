"""An opener of somebody else's, made to ask before each read how long it may take.

urllib passes a time-out on to the socket, where it starts anew with every byte: it bounds nothing in all.
"""

import copy
import functools
import http.client
import io
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket

__all__ = ["tamed"]

_OUR_OWN_WORK: Final = (
    urllib.request.HTTPRedirectHandler,
    urllib.request.FTPHandler,
    urllib.request.FileHandler,
    urllib.request.DataHandler,
)
"""What an opener does by default and this one must not: follow redirects, and open anything but http and
https."""


def tamed(
    base: urllib.request.OpenerDirector, patience: Callable[[], float]
) -> urllib.request.OpenerDirector:
    """An opener with copies of the handlers of another, but without its redirects, and with patience while
    reading.

    The copies share passwords, cookies and TLS contexts with the originals; the original stays as it is.
    """
    opener = urllib.request.OpenerDirector()
    # typeshed does not know the list of handlers, which is there since Python 2.
    for original in base.handlers:  # type: ignore[attr-defined]
        if isinstance(original, _OUR_OWN_WORK):
            continue
        handler: Any = copy.copy(original)
        if isinstance(original, urllib.request.AbstractHTTPHandler):
            handler.do_open = functools.partial(_do_open, handler.do_open, patience)
        opener.add_handler(handler)
    return opener


def _do_open(
    do_open: Callable[..., Any],
    patience: Callable[[], float],
    connection_class: Callable[..., Any],
    *args: Any,
    **how: Any,
) -> Any:
    def connection(*where: Any, **parameters: Any) -> Any:
        made = connection_class(*where, **parameters)
        made.response_class = functools.partial(_PatientResponse, patience)
        return made

    return do_open(connection, *args, **how)


class _PatientResponse(http.client.HTTPResponse):
    """A response that asks before each read, headers included, how long it may take.

    A time-out of the socket alone would start anew with every byte.
    """

    def __init__(self, patience: Callable[[], float], sock: "socket.socket", *args: Any, **how: Any) -> None:
        super().__init__(sock, *args, **how)
        self.fp = io.BufferedReader(_PatientReader(patience, sock, self.fp.detach()))


class _PatientReader(io.RawIOBase):
    def __init__(self, patience: Callable[[], float], sock: "socket.socket", raw: Any) -> None:
        super().__init__()
        self._patience: Final = patience
        self._sock: Final = sock
        self._raw: Final = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._patience())
        size: int | None = self._raw.readinto(buffer)
        return size

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
