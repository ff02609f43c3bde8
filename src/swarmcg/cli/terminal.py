"""The terminal that ``swarmcg run`` shares with its command: who is in the foreground, and stopping together."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["JobControl"]


class JobControl:
    """Makes a command that stops itself stop us as well, so that the shell sees its job stopped.

    Needed only where the terminal does not do it by itself: it stops whole process groups, but a command may
    stop itself alone (``kill -STOP $$``), or be a shell with a process group of its own (``suspend``).
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._paused: int | None = None
        """The command's process group while we are stopped on its behalf."""

    def child_changed(self) -> None:
        """SIGCHLD: stops us if the command has stopped in the foreground of our terminal."""
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            if os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOHANG) is None:
                return
            group = os.getpgid(self._pid)
            if _foreground() in {os.getpgrp(), group}:
                self._paused = group
                # The default action stops us, except where no shell could continue us (an orphaned group).
                os.kill(os.getpid(), signal.SIGTSTP)

    def continued(self) -> None:
        """SIGCONT: the shell continues its job, which is us; a command in a group of its own must be told."""
        group, self._paused = self._paused, None
        if group is None or group == os.getpgrp():
            return
        with contextlib.suppress(OSError), _terminal() as tty:
            if os.tcgetpgrp(tty) == os.getpgrp():
                os.tcsetpgrp(tty, group)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGCONT)


def _foreground() -> int | None:
    """The foreground process group of our controlling terminal; None without one."""
    with contextlib.suppress(OSError), _terminal() as tty:
        return os.tcgetpgrp(tty)
    return None


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    tty = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        yield tty
    finally:
        os.close(tty)
