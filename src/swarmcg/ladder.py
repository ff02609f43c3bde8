"""The stop ladder as a state machine: thaw, drain, terminate, grace, kill, proven empty.

Pure: every method takes the time and returns what is to be done, in order; who calls it does that and tells
what happened. Times are seconds of one monotonic clock. For one thread.

A process in a frozen slice keeps SIGTERM pending, and one pass over the processes of a forking slice misses
some (6 of 24 storms on Linux 6.1). So the slice is frozen, everybody is signalled, and it is thawed; where
freezing takes too long the ladder goes on without.
"""

import enum
from typing import Final

__all__ = ["FREEZE_S", "KILL_S", "Act", "Ladder", "Rung"]

FREEZE_S: Final = 1.0
"""How long freezing may take before the ladder goes on without; 3 to 56 ms were measured."""

KILL_S: Final = 10.0
"""How long the kernel may take to end killed processes before they are called stuck."""


class Act(enum.Enum):
    """Something for the owner of the slice to do."""

    THAW = "thaw"
    DRAIN = "drain"
    FREEZE = "freeze"
    TERMINATE = "terminate"
    """SIGTERM and SIGCONT to every process, then thaw."""
    KILL = "kill"
    """The kernel kills the whole cgroup."""
    KILL_EACH = "kill each"
    """SIGKILL to every process, then thaw: for kernels without cgroup.kill."""
    CRY = "cry"
    """Processes survive the kill: say which."""
    FINISH = "finish"
    """The slice is empty: report and remove it."""


class Rung(enum.Enum):
    """Where on the ladder the bot stands."""

    UP = "up"
    DRAINING = "draining"
    FREEZING = "freezing"
    TERMINATED = "terminated"
    FREEZING_TO_KILL = "freezing to kill"
    KILLED = "killed"
    STUCK = "stuck"
    GONE = "gone"


_STEADY: Final = {Rung.UP, Rung.DRAINING}
_ASKED: Final = {Rung.FREEZING, Rung.TERMINATED}


class Ladder:
    """One bot's way down. Starts on ``Rung.UP``; ends on ``Rung.GONE``, after which every call is harmless."""

    def __init__(self, grace: float, *, can_kill: bool) -> None:
        self._grace: Final = grace
        self._can_kill: Final = can_kill
        self._end = 0.0
        self.rung = Rung.UP
        self.due: float | None = None
        """When :meth:`tick` must be called, None for never."""
        self.terminated = False
        """Whether terminate began."""
        self.grace_over = False
        """Whether the grace period ended with processes left."""

    def drain(self, now: float, deadline: float | None = None) -> tuple[Act, ...]:
        """Asks the bot to finish its task; with a deadline in seconds, terminate follows when it is missed."""
        if self.rung not in _STEADY:
            return ()
        first = self.rung is Rung.UP
        self.rung = Rung.DRAINING
        if deadline is not None:
            self.due = min(self.due or float("inf"), now + deadline)
        return (Act.THAW, Act.DRAIN) if first else ()

    def terminate(self, now: float, grace: float | None = None) -> tuple[Act, ...]:
        """Begins the grace period, or shortens the one that runs; never lengthens it."""
        end = now + (self._grace if grace is None else grace)
        if self.rung in _ASKED:
            self._end = min(self._end, end)
            self.due = min(self.due or self._end, self._end)
            return ()
        if self.rung not in _STEADY:
            return ()
        self.terminated = True
        self._end = end
        self.rung = Rung.FREEZING
        self.due = min(now + FREEZE_S, end)
        return (Act.THAW, Act.FREEZE)

    def frozen(self, now: float) -> tuple[Act, ...]:
        """Every process of the slice is frozen."""
        if self.rung is Rung.FREEZING:
            self.rung, self.due = Rung.TERMINATED, self._end
            return (Act.TERMINATE,)
        if self.rung is Rung.FREEZING_TO_KILL:
            return self._killed(now, Act.KILL_EACH)
        return ()

    def main_ended(self, now: float) -> tuple[Act, ...]:
        """The main process is gone. By itself: what it left is killed at once. While asked to stop: others
        keep the grace.
        """
        return self._kill(now) if self.rung in _STEADY else ()

    def empty(self) -> tuple[Act, ...]:
        """The slice is proven empty and the main process's end is known or lost for good."""
        if self.rung is Rung.GONE:
            return ()
        self.rung, self.due = Rung.GONE, None
        return (Act.FINISH,)

    def tick(self, now: float) -> tuple[Act, ...]:
        """Time has passed; does nothing before ``due``."""
        if self.due is None or now < self.due:
            return ()
        match self.rung:
            case Rung.DRAINING:
                return self.terminate(now)
            case Rung.FREEZING:
                return self.frozen(now)
            case Rung.TERMINATED:
                self.grace_over = True
                return self._kill(now)
            case Rung.FREEZING_TO_KILL:
                return self.frozen(now)
            case _:
                # Killed and not gone: in state D. Kill again each time, for whoever came in by another's
                # hand.
                self.rung, self.due = Rung.STUCK, now + KILL_S
                return (Act.CRY, Act.KILL if self._can_kill else Act.KILL_EACH)

    def _kill(self, now: float) -> tuple[Act, ...]:
        if self._can_kill:
            return self._killed(now, Act.KILL)
        self.rung, self.due = Rung.FREEZING_TO_KILL, now + FREEZE_S
        return (Act.FREEZE,)

    def _killed(self, now: float, how: Act) -> tuple[Act, ...]:
        self.rung, self.due = Rung.KILLED, now + KILL_S
        return (how,)
