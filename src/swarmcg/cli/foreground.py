"""A command in the foreground of our terminal, from its start to its report."""

import contextlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from swarmcg.bot import ExitReport
from swarmcg.cgroup.find import find_home
from swarmcg.cli.outcome import trouble_after
from swarmcg.cli.signalfd import Arrival, Signals
from swarmcg.cli.terminal import JobControl
from swarmcg.errors import StartError, StuckError, SwarmcgError
from swarmcg.journal import Journal
from swarmcg.journald import speak
from swarmcg.keeper.spawn import Order
from swarmcg.places import places
from swarmcg.supervisor.failures import KILLED
from swarmcg.supervisor.guest import be_guest
from swarmcg.supervisor.incarnation import Incarnation
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervisor import Supervisor

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Foreground", "run_command"]

_ENDING: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_TYPED: Final = frozenset({signal.SIGINT, signal.SIGQUIT})


class Foreground:
    """Runs one command and waits for its end. A Listener; for a process with one thread, and used once.

    Signals that our caller ignored stay ignored, here and in the command. The others that end a process are
    taken as orders to walk the stop ladder, except what the terminal sent: the command got that as well.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor: Final = supervisor
        self._jobs: JobControl | None = None
        self._signal: int | None = None
        self._stopping = False
        self._report: ExitReport | None = None
        self._error: BaseException | None = None

    def run(
        self, launch: Launch, argv: Sequence[str], env: Mapping[str, str], *, cwd: str | None
    ) -> ExitReport:
        """Starts the command and returns the report of its end.

        Raises a SwarmcgError when it cannot be started, when it cannot be ended, or when it has ended and its
        report could not be kept; SystemExit when a signal ended it before it ran.
        """
        signals = _take_signals()
        order = Order(argv, env, procs=-1, cwd=cwd, service=False, mask=list(signals.mask))
        bot = self._supervisor.start(launch, order, self)
        self._supervisor.poll.watch(signals.fileno(), lambda: self._heed(signals, bot))
        while self._report is None and self._error is None and not bot.given_up:
            self._supervisor.turn()
        self._supervisor.poll.ignore(signals.fileno())
        signals.close()
        if self._report is None:
            assert self._error is not None  # noqa: S101  a bot is given up only after it was called stuck
            raise self._error
        if isinstance(self._error, SwarmcgError):
            raise trouble_after(self._report, self._error)
        return self._report

    def _heed(self, signals: Signals, bot: Incarnation) -> None:
        for arrival in signals.arrived():
            if arrival.number in _ENDING:
                self._signal = arrival.number
                self._end(arrival, bot)
            elif self._jobs is not None:
                (self._jobs.child_changed if arrival.number == signal.SIGCHLD else self._jobs.continued)()

    def _end(self, arrival: Arrival, bot: Incarnation) -> None:
        if arrival.by_kernel and arrival.number in _TYPED:
            return
        bot.stop(0 if self._stopping else None)
        self._stopping = True

    def started(self, bot: Incarnation) -> None:
        """See Listener."""
        assert bot.main is not None  # noqa: S101  it has started
        self._jobs = JobControl(bot.main.pid)

    def failed(self, bot: Incarnation, error: SwarmcgError) -> None:
        """See Listener."""
        del bot
        killed = isinstance(error, StartError) and error.step == KILLED
        self._error = SystemExit(128 + self._signal) if killed and self._signal else error

    def ended(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError | None) -> None:
        """See Listener."""
        del bot
        self._report, self._error = report, trouble

    def stuck(self, bot: Incarnation, error: StuckError) -> None:
        """See Listener."""
        if bot.given_up:
            self._error = error


def run_command(
    launch: Launch, argv: Sequence[str], env: Mapping[str, str], *, cwd: str | None, home: str | None
) -> ExitReport:
    """Runs the command in a slice of its own, which this process owns; see :meth:`Foreground.run`. The slice is in
    the bots unit where that runs, else in a home that is found.

    Raises HomeError, too.
    """
    speak()
    with contextlib.ExitStack() as undo:
        guest = be_guest() if home is None else None
        if guest is not None:
            undo.callback(guest.close)
        place = find_home(home, enter=True) if guest is None else guest.home
        supervisor = Supervisor(place, Journal(places().reports), in_process=True)
        undo.callback(supervisor.close)
        if guest is not None:
            guest.watch(supervisor)
        return Foreground(supervisor).run(launch, argv, env, cwd=cwd)


def _take_signals() -> Signals:
    # An ignored SIGCHLD would make the kernel reap the command before anybody has seen its status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    heeded = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, signal.SIG_DFL)  # Python's own handler must not run in the forked child
    return Signals([*heeded, signal.SIGCHLD, signal.SIGCONT])
