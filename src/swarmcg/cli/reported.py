"""Where ``--report`` goes: a file, which whoever owns the slice writes, or a descriptor of ours, which we write."""

import os
import re
from argparse import Namespace
from typing import Final, NamedTuple

from swarmcg.bot import ExitReport
from swarmcg.cli.parser import UsageError
from swarmcg.report_file import write_report_to

__all__ = ["Reported", "reported"]

_DESCRIPTOR: Final = re.compile(
    r"/dev/(?P<stream>stdin|stdout|stderr)|/(?:dev|proc/self)/fd/(?P<number>[0-9]{1,9})"
)
_STREAMS: Final = {"stdin": 0, "stdout": 1, "stderr": 2}


class Reported(NamedTuple):
    """``file`` is for who owns the slice; ``fd`` is a descriptor of this process. At most one of them is there."""

    name: str = ""
    file: str | None = None
    fd: int | None = None

    def tell(self, report: ExitReport) -> None:
        """Writes the report where that is for this process to do. Raises StateError."""
        if self.fd is not None:
            write_report_to(self.fd, self.name, report)


def reported(asked: Namespace) -> Reported:
    """What ``--report`` names, once it is clear that it can be written there. Raises UsageError."""
    if asked.report is None:
        return Reported()
    path = os.path.abspath(str(asked.report))
    if asked.report == "-":
        raise UsageError(
            "--report - names no file",
            cause="the report would stand among the command's own output",
            remedy="Name a file, or /dev/stderr.",
        )
    # Opened anew, it would have an offset of its own, and in the slice's owner it is another file, if any.
    if found := _DESCRIPTOR.fullmatch(path):
        number = found["number"]
        fd = _STREAMS[found["stream"]] if number is None else int(number)
        _check_descriptor(fd, path, detach=asked.detach)
        return Reported(path, fd=fd)
    _check_file(path)
    return Reported(path, file=path)


def _check_descriptor(fd: int, path: str, *, detach: bool) -> None:
    if detach:
        raise UsageError(
            f"--report {path} and --detach exclude each other",
            cause="the report comes when this process, whose descriptor that is, has ended long ago",
            remedy="Name a file.",
        )
    try:
        os.fstat(fd)
    except (OSError, OverflowError) as e:
        raise UsageError(
            "--report cannot be written",
            path=path,
            errno=e.errno if isinstance(e, OSError) else None,
            cause="this process was given no such descriptor",
            remedy=f"Open it (in a shell: {fd}>FILE), or name a file.",
        ) from e


def _check_file(path: str) -> None:
    directory = os.path.dirname(path)
    if os.path.isdir(path) or not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(
            "--report cannot be written",
            path=path,
            cause="it is a directory" if os.path.isdir(path) else f"{directory} is missing or not writable",
            remedy="Name a file in a directory that can be written.",
        )
