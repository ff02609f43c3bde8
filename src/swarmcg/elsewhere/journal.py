"""The journal of exit reports where there is no flock: the same file, ``reports.jsonl``, one JSON object a line.

What holds: a report is on disk before its bot counts as ended, and the threads of one program never mix theirs. Of
several programs, macOS appends each write whole, at the end (POSIX, write(2) with O_APPEND). Windows does not promise
that; programs that may report in the same instant should each have a SWARMCG_STATE_DIR of their own there.
"""

import os
import threading
from typing import Final

from swarmcg.bot import ExitReport
from swarmcg.errors import StateError

__all__ = ["Journal"]

_ONE_AT_A_TIME: Final = threading.Lock()


class Journal:
    """Appends reports to one file. May be used from any thread."""

    def __init__(self, path: str) -> None:
        self.path: Final = path

    def check(self) -> None:
        """Makes directory and file if need be. Raises StateError when no report could be written there."""
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            with open(self.path, "ab"):
                pass
        except OSError as e:
            raise self._error("Reports cannot be kept", e) from e

    def append(self, report: ExitReport) -> None:
        """Writes the report's line and waits until it is on disk. Raises StateError.

        After a last line that a crash tore it begins on a new one, so that only the torn one cannot be read.
        """
        self.check()
        line = report.to_json() + b"\n"
        try:
            with _ONE_AT_A_TIME, open(self.path, "a+b", buffering=0) as f:
                torn = _is_torn(f.fileno())
                f.write(b"\n" + line if torn else line)
                os.fsync(f.fileno())
        except OSError as e:
            raise self._error("The report could not be kept", e) from e

    def _error(self, what: str, e: OSError) -> StateError:
        remedy = "Name a directory that can be written with SWARMCG_STATE_DIR, or free space on it."
        return StateError(what, path=self.path, errno=e.errno, cause=e.strerror, remedy=remedy)


def _is_torn(fd: int) -> bool:
    if not os.fstat(fd).st_size:
        return False
    os.lseek(fd, -1, os.SEEK_END)
    return os.read(fd, 1) != b"\n"
