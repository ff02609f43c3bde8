"""One life of a bot, from its slice to its report, as its supervisor lives it."""

import contextlib
import datetime as dt
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from swarmcg.bot import ExitReport, Leftovers
from swarmcg.cgroup.files import read_text
from swarmcg.cgroup.limits import Limits, limits_at_end
from swarmcg.cgroup.oom import OomWatch
from swarmcg.cgroup.recorded import InForce, Moment, NotInForce, Pathname, Seconds
from swarmcg.cgroup.slice import Slice
from swarmcg.cgroup.usage import Usage, usage
from swarmcg.errors import StuckError, SwarmcgError, printable
from swarmcg.journald import about
from swarmcg.ladder import Act, Ladder
from swarmcg.supervisor.reminder import Reminder, image_of
from swarmcg.verdict import End, reason

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Incarnation", "Intent", "Listener"]

_LOG: Final = logging.getLogger("swarmcg")
_NAMES: Final = 32
_LOOKED_AT: Final = 256
_CRIES: Final = 3


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded on a slice before anything runs in it; enough for whoever must end it later."""

    bot_id: str
    incarnation: str
    grace: Seconds
    journal: Pathname
    ours: bool
    created: Moment
    drain_file: Pathname | None = None
    work_directory: Pathname | None = None
    report_file: Pathname | None = None
    detached: bool = False
    limits: InForce = {}
    unenforced: NotInForce = ()


class Listener(Protocol):
    """Who wants to know. Called in the supervisor's thread; must not block."""

    def started(self, bot: "Incarnation") -> None:
        """The program was executed."""
        ...

    def failed(self, bot: "Incarnation", error: SwarmcgError) -> None:
        """It was not, and nothing is left of the attempt."""
        ...

    def ended(self, bot: "Incarnation", report: ExitReport, trouble: SwarmcgError | None) -> None:
        """The slice is empty; ``trouble`` says why report or slice could not be dealt with, and who will."""
        ...

    def stuck(self, bot: "Incarnation", error: StuckError) -> None:
        """Processes survive the kill. :meth:`ended` follows if they ever go."""
        ...


class Nobody:
    """The Listener of slices whose owner is gone: the journal has the report."""

    def started(self, bot: "Incarnation") -> None:
        """See Listener."""

    def failed(self, bot: "Incarnation", error: SwarmcgError) -> None:
        """See Listener."""

    def ended(self, bot: "Incarnation", report: ExitReport, trouble: SwarmcgError | None) -> None:
        """See Listener."""

    def stuck(self, bot: "Incarnation", error: StuckError) -> None:
        """See Listener."""


class Main(msgspec.Struct):
    """The main process: who it is, and how it ended as far as it is known."""

    pid: int
    pidfd: int
    at: float
    monotonic: float
    known: bool = False
    lost: bool = False
    exit_code: int | None = None
    signal: int | None = None
    ended: float | None = None
    """On the monotonic clock, as ``monotonic`` is: the other one may be set meanwhile."""

    def close(self) -> None:
        """Lets the pidfd go."""
        if self.pidfd >= 0:
            os.close(self.pidfd)


class Incarnation:
    """A slice with its ladder and its main process. Owned by one supervisor and used in its thread only.

    ``drain`` carries out the bot's own way to drain; ``finish`` reports and removes the empty slice.
    """

    def __init__(
        self,
        held: Slice,
        intent: Intent,
        listener: Listener,
        *,
        drain: Callable[["Incarnation"], None],
        finish: Callable[["Incarnation"], None],
    ) -> None:
        self.slice: Final = held
        self.intent: Final = intent
        self.listener = listener
        """May be replaced by one that tells others as well."""
        self.ladder: Final = Ladder(intent.grace, can_kill=held.can_kill())
        self.main: Main | None = None
        self.oom: Final = OomWatch(held.path)
        self.adopted = False
        self.cries = 0
        self._reminder: Final = Reminder()
        self._end: End | None = None
        self._left: tuple[int, set[str]] = (0, set())
        self._acts: Final[dict[Act, Callable[[], None]]] = {
            Act.THAW: held.thaw,
            Act.DRAIN: lambda: drain(self),
            Act.FREEZE: self._freeze,
            Act.TERMINATE: self._terminate,
            Act.KILL: self._kill,
            Act.KILL_EACH: self._kill_each,
            Act.CRY: self._cry,
            Act.FINISH: lambda: finish(self),
        }

    @property
    def key(self) -> str:
        """The incarnation's name, by which the keeper knows it."""
        return self.intent.incarnation

    @property
    def given_up(self) -> bool:
        """Whether its processes have survived so many kills that nobody should wait for them any more."""
        return self.cries >= _CRIES

    @property
    def due(self) -> float | None:
        """When :meth:`tick` must be called, None for never."""
        reminder = None if self.settled() or self.ladder.grace_over else self._reminder.due
        return min((due for due in (self.ladder.due, reminder) if due is not None), default=None)

    def settled(self) -> bool:
        """Whether the main process's end is known, or lost for good, or there never was one."""
        return self.main is None or self.main.known or self.main.lost

    def say(self, text: str, *values: object) -> None:
        """Tells the log something about this bot. At no higher level: whoever asked for the bot tells the user."""
        self._log(logging.INFO, text, values)

    def warn(self, text: str, *values: object) -> None:
        """The same, for what is lost and stands in no report."""
        self._log(logging.WARNING, text, values)

    def _log(self, level: int, text: str, values: tuple[object, ...]) -> None:
        extra = about(self.intent.bot_id, self.key)
        _LOG.log(level, f"bot %s: {text}", printable(self.intent.bot_id), *values, extra=extra)

    def contained(self, act: Callable[[], None]) -> None:
        """Does something for this bot; what goes wrong there (a lack of descriptors, say) ends no other bot.

        The ladder's next deadline tries again.
        """
        try:
            act()
        except OSError:
            _LOG.exception("bot %r: something failed, and is tried again", self.intent.bot_id)

    def stop(self, grace: float | None = None) -> None:
        """Begins or shortens the grace period."""
        self.say("terminating, %g s of grace", self.intent.grace if grace is None else grace)
        self.contained(lambda: self.do(self.ladder.terminate(time.monotonic(), grace)))

    def drain(self, deadline: float | None) -> None:
        """Asks the bot to finish its task."""
        self.say("draining")
        with contextlib.suppress(OSError):
            self.slice.remember("draining", {"at": time.time()})  # for whoever looks at it
        self.contained(lambda: self.do(self.ladder.drain(time.monotonic(), deadline)))

    def main_ended(self, exit_code: int | None, number: int | None, at: float | None) -> None:
        """The keeper reaped the main process, which had ended at that time of the monotonic clock, or just now."""
        main = self.main
        if main is None or main.known:
            return
        main.known, main.exit_code, main.signal = True, exit_code, number
        main.ended = time.monotonic() if at is None else at
        self._note_end()
        self._after_main()

    def main_lost(self) -> None:
        """The main process is gone and nobody can tell how it ended."""
        if self.main is None or not self.settled():
            if self.main is not None:
                self.main.lost, self.main.ended = True, time.monotonic()
            self._note_end()
            self._after_main()

    def never_started(self) -> None:
        """The keeper tells whoever took the slice over that no program was executed in it."""
        if self.main is not None and not self.settled():
            self.main.close()
            self.main = None
            self.main_lost()

    def _note_end(self) -> None:
        """Looks while it is fresh why the main process ended; what happens to its leftovers later changes
        nothing.
        """
        main = self.main
        killed = main is not None and main.signal == signal.SIGKILL
        by_us = killed and self.ladder.grace_over
        oom = (
            self.oom.verdict(main.pid, main.monotonic) if main is not None and killed and not by_us else None
        )
        self._end = End(
            started=main is not None,
            observed=main is not None and main.known,
            signal=main.signal if main else None,
            terminated=self.ladder.terminated,
            grace_over=by_us,
            oom=(oom.reason, oom.evidence) if oom else None,
        )

    def _after_main(self) -> None:
        if self.slice.populated():
            self.do(self.ladder.main_ended(time.monotonic()))
        else:
            self.do(self.ladder.empty())

    def look(self) -> None:
        """cgroup.events or memory.events changed, or may have."""
        if self.main is not None and not self.settled():
            self.oom.look(self.main.pid)
        events = self.slice.events()
        if events.get("frozen"):
            self.do(self.ladder.frozen(time.monotonic()))
        if self.settled() and not events.get("populated"):
            self.do(self.ladder.empty())

    def tick(self) -> None:
        """Time has passed."""
        main, now = self.main, time.monotonic()
        if (
            main is not None
            and not self.settled()
            and self._reminder.forgotten(lambda: image_of(main.pid), now)
        ):
            self._send_main(signal.SIGTERM)
        self.do(self.ladder.tick(now))

    def tell_main(self) -> None:
        """SIGTERM to the main process alone, which the stock bot takes for a drain."""
        self._remind_later()
        self._send_main(signal.SIGTERM)

    def _remind_later(self) -> None:
        """Only a bot is told again: any other command may well have executed what is to clean up after it."""
        if self.main is not None and self.intent.work_directory is not None:
            self._reminder.told(image_of(self.main.pid), time.monotonic())

    def _send_main(self, number: signal.Signals) -> None:
        if self.main is None or self.main.pidfd < 0 or self.settled():
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.main.pidfd, number)

    def do(self, acts: tuple[Act, ...]) -> None:
        """Carries out what the ladder says, in order. A slice that vanished is not an error: it is empty."""
        for act in acts:
            with contextlib.suppress(FileNotFoundError):
                self._acts[act]()

    def _freeze(self) -> None:
        with contextlib.suppress(OSError):
            self.slice.remember("stopping", {"terminated": self.ladder.terminated, "at": time.time()})
        self.slice.freeze()
        if self.slice.frozen():
            self.do(self.ladder.frozen(time.monotonic()))

    def _terminate(self) -> None:
        self._remind_later()
        try:
            # A stopped process keeps SIGTERM pending until it is continued.
            self.slice.signal(signal.SIGTERM, signal.SIGCONT)
        finally:
            self.slice.thaw()

    def _kill(self) -> None:
        self._kill_main()
        self._count_leftovers()
        self.slice.kill()

    def _kill_each(self) -> None:
        self._kill_main()
        try:
            self._count_leftovers()
            self.slice.signal(signal.SIGKILL)
        finally:
            self.slice.thaw()

    def _kill_main(self) -> None:
        """Kills the main process if somebody moved it out of its slice: else nobody would ever see its end."""
        if self.main is not None and not self.settled() and not self.slice.holds(self.main.pid):
            self._send_main(signal.SIGKILL)

    def _count_leftovers(self) -> None:
        pids = self.slice.pids()
        count, names = self._left
        self._left = max(count, len(pids)), names | {name for name in map(_name, pids[:_LOOKED_AT]) if name}

    def _cry(self) -> None:
        self.cries += 1
        if self.cries > _CRIES:
            return  # it has been told often enough; the slice is still watched
        who = [_describe(pid) for pid in self.slice.pids()]
        if who:
            self.say("processes survive the kill: %s", "; ".join(who[:16]))
            self.listener.stuck(
                self,
                StuckError(
                    f"Processes of bot {self.intent.bot_id!r} survive the kill",
                    path=self.slice.path,
                    value="; ".join(who[:16]),
                    cause="they wait in the kernel and cannot be ended before that wait ends (state D)",
                    remedy="See what they wait for: a dead disk, network mount or device. Their slice stays fenced.",
                ),
            )

    def report(self) -> ExitReport:
        """The report of the end; to be made once, when the slice is empty."""
        if self._end is None:
            self._note_end()
        end = self._end
        assert end is not None  # noqa: S101  noted just above
        why, evidence = reason(end)
        used: Usage = usage(self.slice.cgroup.files)
        given = limits_at_end(
            self.slice, Limits(limits=self.intent.limits, unenforced=self.intent.unenforced)
        )
        main = self.main
        count, names = self._left
        return ExitReport(
            bot_id=self.intent.bot_id,
            incarnation=self.intent.incarnation,
            reason=why,
            reason_evidence=evidence,
            exit_code=main.exit_code if main else None,
            signal=main.signal if main else None,
            started_at=_rfc3339(main.at) if main else None,
            duration_s=round(max(0.0, main.ended - main.monotonic), 6) if main and main.ended else None,
            cpu=used.cpu,
            memory_peak_bytes=used.memory_peak_bytes,
            swap_peak_bytes=used.swap_peak_bytes,
            io=used.io,
            pids_peak=used.pids_peak,
            oom_kills=used.oom_kills,
            pressure=used.pressure,
            leftovers=Leftovers(count=count, names=tuple(sorted(names)[:_NAMES])),
            limits=given.limits,
            unenforced=given.unenforced,
        )


def _rfc3339(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _name(pid: int) -> str | None:
    """The process's name for a report: it may have given itself any bytes, also such as are no text."""
    with contextlib.suppress(OSError):
        return printable(read_text(f"/proc/{pid}/comm"))
    return None


def _describe(pid: int) -> str:
    """A process that will not die, by pid, name, state and the kernel function that it waits in."""
    stat = wchan = ""
    with contextlib.suppress(OSError):
        stat = read_text(f"/proc/{pid}/stat").rpartition(") ")[2][:1]
        wchan = read_text(f"/proc/{pid}/wchan")
    return f"pid {pid} {_name(pid) or '?'} state {stat or '?'} in {wchan or '?'}"
