"""signalfd(2): signals as events of a descriptor, with who sent them. Python's signal module has none of it."""

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from swarmcg.errors import SwarmcgError

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Arrival", "Signals"]

_INFO: Final = struct.Struct("=Iii116x")  # struct signalfd_siginfo: ssi_signo, ssi_errno, ssi_code, the rest
_CLOEXEC, _NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK  # SFD_* are these, on every architecture


class Arrival(NamedTuple):
    """A signal that arrived; ``by_kernel`` tells a terminal's Ctrl-C from kill(2) (sigaction(2), si_code)."""

    number: int
    by_kernel: bool


class Signals:
    """Blocks the signals in this thread and reads them from a descriptor instead.

    ``mask`` is what was blocked before. An ignored signal should not be asked for: blocked, it would be
    delivered all the same (kernel/signal.c, sig_ignored).
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        wanted = set(numbers)
        self.mask: Final = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        self._fd: Final = _signalfd(wanted)

    def fileno(self) -> int:
        """The descriptor, for polling."""
        return self._fd

    def close(self) -> None:
        """Closes the descriptor; the signals stay blocked, so that none of them ends us on the last metres."""
        os.close(self._fd)

    def arrived(self) -> Iterator[Arrival]:
        """Every signal that is pending now. Does not block."""
        while True:
            try:
                number, _, code = _INFO.unpack(os.read(self._fd, _INFO.size))
            except BlockingIOError:
                return
            yield Arrival(number, code > 0)


def _signalfd(numbers: Iterable[int]) -> int:
    bits = sum(1 << (number - 1) for number in numbers)
    mask = (ctypes.c_uint64 * 16)(bits)  # sigset_t has 1,024 bits in both glibc and musl
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.signalfd(-1, ctypes.byref(mask), _CLOEXEC | _NONBLOCK)
    if fd < 0:
        raise SwarmcgError("Signals cannot be waited for", errno=ctypes.get_errno())
    return fd
