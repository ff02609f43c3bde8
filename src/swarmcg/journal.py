"""The journal of exit reports: ``reports.jsonl``, one JSON object a line, appended and on disk before a slice
is removed.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import sys
from collections.abc import Iterator

from swarmcg.bot import ExitReport
from swarmcg.errors import StateError
from swarmcg.flock import hold

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Journal"]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MODE = 0o640  # who may not open it cannot hold its lock
_CURE = "Name a directory that can be written with SWARMCG_STATE_DIR, or free space on it."


class Journal:
    """Appends reports to one file. Safe for any number of processes: each append holds the file's lock."""

    def __init__(self, path: str) -> None:
        self.path = path

    def check(self) -> None:
        """Makes directory and file if need be. Raises StateError when no report could be written there."""
        with self._errors("Reports cannot be kept"), self._open():
            pass

    def append(self, report: ExitReport, *, sync: bool = True) -> None:
        """Writes the report's line and waits until it is on disk; a torn last line of a crash is cut first.
        Raises StateError.
        """
        with self._errors("The report could not be kept"), self._open() as fd:
            hold(fd, fcntl.LOCK_EX)
            end = self._sound_end(fd)
            line = report.to_json() + b"\n"
            try:
                _write_all(fd, line, end)
            except OSError:
                os.ftruncate(fd, end)
                raise
            if sync:
                os.fdatasync(fd)

    def knows(self, incarnation: str) -> bool:
        """Whether this incarnation has been reported already, by whoever. Reads the whole file."""
        with self._errors("The reports cannot be read"), self._open() as fd:
            hold(fd, fcntl.LOCK_SH)
            if not os.fstat(fd).st_size:
                return False
            with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as text:
                end = text.rfind(b"\n") + 1  # a torn last line is no report
                return text.find(b'"incarnation":"%s"' % incarnation.encode(), 0, end) >= 0

    def _sound_end(self, fd: int) -> int:
        """The file's size after cutting a last line that has no end."""
        size = os.fstat(fd).st_size
        if not size or os.pread(fd, 1, size - 1) == b"\n":
            return size
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as text:
            end = text.rfind(b"\n") + 1
        os.ftruncate(fd, end)
        return end

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        try:
            fd = os.open(self.path, _FLAGS, _MODE)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            fd = os.open(self.path, _FLAGS, _MODE)
        try:
            _check_regular(fd)
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise StateError(what, path=self.path, errno=e.errno, cause=e.strerror, remedy=_CURE) from e


def _write_all(fd: int, text: bytes, at: int) -> None:
    """Writes all of it; a disk that is nearly full takes a part first and fails then."""
    written = 0
    while written < len(text):
        written += os.pwrite(fd, text[written:], at + written)


def _check_regular(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
