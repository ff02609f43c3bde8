"""The copy of an exit report that was asked for, in a file of the caller's choice."""

import contextlib
import os
import stat
from collections.abc import Iterator

from swarmcg.bot import ExitReport
from swarmcg.errors import StateError

__all__ = ["write_report", "write_report_to"]


def write_report(path: str, report: ExitReport) -> None:
    """Writes the report as one JSON object. A plain file is replaced in one step; a pipe or device is written to.

    Raises StateError.
    """
    text = _text(report)
    with _errors(path, "Name a file in a directory that can be written."):
        if _is_special(path):
            _write_special(path, text)
        else:
            _replace(os.path.realpath(path), text)


def write_report_to(fd: int, name: str, report: ExitReport) -> None:
    """Writes the report to an open descriptor, where its offset is. Blocks as long as whoever reads it takes nothing.

    Raises StateError, which calls the descriptor by the ``name``.
    """
    text = memoryview(_text(report))
    with _errors(name, "See that it is open for writing, that somebody reads it, and that there is room."):
        while text:
            text = text[os.write(fd, text) :]


def _text(report: ExitReport) -> bytes:
    return report.to_json() + b"\n"


@contextlib.contextmanager
def _errors(path: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise StateError("The report could not be written", path=path, errno=e.errno, remedy=remedy) from e


def _is_special(path: str) -> bool:
    # /dev/stdout may lead to a plain file that others write to as well: it is added to, and never replaced.
    if path.startswith(("/dev/", "/proc/")):
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


_WAIT_FOR_NOBODY = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows has neither


def _write_special(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | _WAIT_FOR_NOBODY)  # a pipe that nobody reads is ENXIO
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def _replace(path: str, text: bytes) -> None:
    partial = f"{path}.{os.getpid()}.partial"
    try:
        with open(partial, "xb") as f:
            f.write(text)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
