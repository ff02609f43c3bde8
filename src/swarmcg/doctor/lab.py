"""Where canaries are started: a supervisor with a keeper of its own, and a journal that is removed with it."""

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Any, Final, Self

from swarmcg.bot import ExitReport
from swarmcg.cgroup.files import read_text
from swarmcg.cgroup.find import find_home, needs_scope
from swarmcg.cgroup.home import Home
from swarmcg.doctor import canary
from swarmcg.resources import LinuxResources
from swarmcg.supervisor.client import Connection
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervised import SupervisedBot
from swarmcg.supervisor.unit import find_unit

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["GRACE_S", "Canary", "Lab"]

GRACE_S: Final = 1.0
"""The canaries' grace period, also when this process is killed in the midst of a test."""
_CLOSE_S: Final = 15.0
_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM})


class Lab:
    """Starts canaries in a home, and in the end leaves nothing of them, however the block is left. For one thread.

    The home is found as ``swarmcg bot`` finds it, except that a scope of systemd is the supervisor's alone, and that in
    the bots unit, too, canaries have a supervisor and a journal of their own. Entering raises HomeError when there is
    none.
    """

    def __init__(self, home: str | None) -> None:
        self.slices: Final[list[str]] = []
        self.ended: Final[list[ExitReport]] = []
        self._home: Final = home
        self._stack: Final = contextlib.ExitStack()

    def __enter__(self) -> Self:
        found = _home(self._home)
        place = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="swarmcg-doctor-"))
        self._journal = f"{place}/reports.jsonl"
        try:
            self._connection = Connection(found, self._journal)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Signals wait until all is gone: who is impatient would leave a part of it behind."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._connection.close(_CLOSE_S)
            self._stack.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextlib.contextmanager
    def canary(self, way: Callable[[], None], resources: str = "{}") -> Iterator["Canary"]:
        """A canary that was started with these OCI resources. Raises what a start raises.

        Swap that cannot be limited is no reason to refuse.
        """
        with contextlib.ExitStack() as undo:
            stdin, go = _pipe(undo)
            hear, stdout = _pipe(undo)
            null = undo.enter_context(open(os.devnull, "wb"))
            bot = self._connection.reserve().start(
                Launch(
                    bot_id=f"doctor-{way.__name__}",
                    resources=LinuxResources.from_json(resources),
                    lenient=frozenset({"memory.swap"}),
                    grace=GRACE_S,
                ),
                [sys.executable, "-I", "-S", canary.__file__, way.__name__],
                {},
                cwd="/",
                stdio=(stdin.fileno(), stdout.fileno(), null.fileno()),
            )
            self.slices.append(bot.slice)
            stdin.close()
            stdout.close()
            yield Canary(bot, hear, go, self.ended)

    def left(self) -> list[str]:
        """The slices of canaries that are still there."""
        return [path for path in self.slices if os.path.exists(path)]

    def unreported(self) -> list[str]:
        """The ids of canaries that ended and do not stand in the journal as they ended."""
        with contextlib.suppress(OSError), open(self._journal, "rb") as f:
            kept = {line.rstrip(b"\n") for line in f}
            return [report.bot_id for report in self.ended if report.to_json() not in kept]
        return [report.bot_id for report in self.ended]


def _home(explicit: str | None) -> Home | None:
    """Where canaries live; None for a scope of systemd that is to come."""
    unit = find_unit() if explicit is None else None
    if unit is not None:
        return unit.home
    return None if needs_scope(explicit) else find_home(explicit, enter=True)


class Canary:
    """A canary that runs."""

    def __init__(self, bot: SupervisedBot, hear: IO[bytes], go: IO[bytes], ended: list[ExitReport]) -> None:
        self.bot: Final = bot
        self._hear: Final = hear
        self._go: Final = go
        self._ended: Final = ended

    def says(self) -> dict[str, Any] | None:
        """What it says when it is ready; None when it ended before."""
        line = self._hear.readline()
        told: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return told

    def in_slice(self, pid: int) -> bool:
        """Whether the kernel counts a process to the canary's slice."""
        with contextlib.suppress(OSError):
            return f"/{os.path.basename(self.bot.slice)}/" in read_text(f"/proc/{pid}/cgroup")
        return False

    def lets_go(self) -> ExitReport:
        """Closes its standard input, on which it ends by itself, and waits for its end."""
        self._go.close()
        return self.report()

    def report(self) -> ExitReport:
        """Waits for its end."""
        found = self.bot.wait()
        self._ended.append(found)
        return found


def _pipe(undo: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    read, write = os.pipe()
    return undo.enter_context(open(read, "rb", buffering=0)), undo.enter_context(
        open(write, "wb", buffering=0)
    )
