"""``swarmcg clean``: slices whose owner is gone, listed or ended."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from swarmcg.bot import ExitReport
from swarmcg.cgroup import network
from swarmcg.cgroup.home import Home, find_homes
from swarmcg.cgroup.slice import Slice
from swarmcg.cli import options, sizes
from swarmcg.cli.complaint import complain
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.cli.signalfd import Signals
from swarmcg.cli.tables import table
from swarmcg.errors import OwnerLostError, StuckError, SwarmcgError, from_dict
from swarmcg.journal import Journal
from swarmcg.keeper.wire import Wire
from swarmcg.places import places
from swarmcg.supervisor.incarnation import Incarnation
from swarmcg.supervisor.remains import intent_of
from swarmcg.supervisor.supervisor import Supervisor
from swarmcg.supervisor.unit import reach

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["FAILURE", "USAGE", "main"]

FAILURE: Final = 2
USAGE: Final = 2

_EPILOG: Final = """\
A slice is without an owner when everything that started, kept or inherited it was killed. A slice whose owner
or keeper still works is never touched, except that --detached ends bots of the bots unit. Ctrl-C during clean --yes
ends all grace periods at once.
Packet rules of slices that are gone altogether are listed and removed as well, in this network namespace.

exit status: without --yes 0 when there is none, else 1; with --yes 0 when all are gone, else 1; 2 when we fail.

examples:
  swarmcg clean
  swarmcg clean --yes --grace 10s"""


class Ownerless(msgspec.Struct, frozen=True):
    """A slice without an owner, as it was found; what it does not tell is None."""

    path: str
    bot_id: str | None
    incarnation: str | None
    processes: int
    age_s: float | None


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked = _parser().parse_args(words)
    grace = None if asked.grace is None else sizes.grace("--grace", asked.grace)
    if not asked.yes and (grace is not None or asked.detached is not None):
        raise UsageError(
            "--grace and --detached need --yes",
            cause="without it slices are only listed",
            remedy="swarmcg clean --yes …",
        )
    wire = reach() if asked.home is None else None  # whoever serves the unit takes over what is left in it
    homes = find_homes(asked.home)
    if not asked.yes:
        return _list(homes)
    return _end(homes, grace, None if asked.detached is None else wire, asked.detached or None)


def _parser() -> Parser:
    parser = Parser("swarmcg clean", "Lists slices that nobody owns any more, and ends them.", _EPILOG)
    parser.add_argument("--yes", action="store_true", help="end them: SIGTERM, the grace period, the kill")
    parser.add_argument(
        "--grace", metavar="TIME", help="the grace period, as in 90s (default: each slice's own)"
    )
    parser.add_argument(
        "--detached", nargs="*", metavar="ID", help="with --yes: end detached bots as well, all or these"
    )
    options.add_home(parser)
    return parser


def _list(homes: Sequence[Home]) -> int:
    found = []
    for held in (held for home in homes for held in home.ownerless()):
        found.append(_seen(held))
        held.close()
    if found:
        table(("ID", "INCARNATION", "PROCESSES", "AGE", "SLICE"), map(_cells, found), sys.stdout)
    rules = network.orphans(end=False)
    for name in rules:
        print(f"of a slice that is gone: {name}")
    return int(bool(found or rules))


def _seen(held: Slice) -> Ownerless:
    intent = intent_of(held)
    return Ownerless(
        path=held.path,
        bot_id=intent.bot_id if intent else None,
        incarnation=intent.incarnation if intent else None,
        processes=len(held.pids()),
        age_s=time.time() - intent.created if intent else None,
    )


def _cells(found: Ownerless) -> tuple[str, ...]:
    return (
        found.bot_id or "?",
        found.incarnation or "?",
        str(found.processes),
        "?" if found.age_s is None else age(found.age_s),
        found.path,
    )


def age(seconds: float) -> str:
    """A length of time in its two largest units: ``2d3h``, ``4m10s``."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def _end(homes: Sequence[Home], grace: float | None, unit: Wire | None, ids: list[str] | None) -> int:
    # Only the first home can be a directory of ours, which is the supervisor's to settle; the others are scopes.
    supervisor = Supervisor(homes[0], Journal(places().reports), in_process=True)
    ender = Ender()
    signals = Signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    detached = None if unit is None else Detached(unit, ids, grace, ender, supervisor)
    supervisor.poll.watch(signals.fileno(), lambda: _hurry(supervisor, signals, detached))
    try:
        for held in (held for home in homes for held in home.ownerless()):
            ender.add(held.path)
            bot = supervisor.adopt(held, ender)
            if bot is not None:
                bot.stop(grace)
        while any(not bot.given_up for bot in supervisor.bots.values()) or (detached and not detached.done):
            supervisor.turn()
    finally:
        supervisor.close()
        signals.close()
    status = ender.tell()
    for name in network.orphans(end=True):
        print(f"removed, of a slice that is gone: {name}")
    return status


def _hurry(supervisor: Supervisor, signals: Signals, detached: "Detached | None") -> None:
    """A signal ends all grace periods, rather than leave half of the work behind."""
    for _ in signals.arrived():
        for bot in list(supervisor.bots.values()):
            bot.stop(0)
        if detached is not None:
            detached.order(0)


class Detached:
    """The bots of the unit that are to end: it ends them, and tells what became of them."""

    def __init__(
        self, unit: Wire, ids: list[str] | None, grace: float | None, ender: "Ender", supervisor: Supervisor
    ) -> None:
        self.done = False
        self._unit: Final = unit
        self._ids: Final = ids
        self._ender: Final = ender
        self._poll: Final = supervisor.poll
        self.order(grace)
        supervisor.poll.watch(unit.fileno(), self._hear)

    def order(self, grace: float | None) -> None:
        """Has them ended, or their grace periods cut short."""
        self._unit.send({"do": "end", "ids": self._ids, "grace": grace})

    def _hear(self) -> None:
        for message, _ in self._unit.receive():
            if message["event"] == "ended":
                self._ender.note(
                    message["slice"], msgspec.convert(message["report"], ExitReport), message["trouble"]
                )
            elif message["event"] == "stuck":
                self._ender.add(message["slice"])
                complain(from_dict(message["error"]))
            else:
                self.done = True
        if self._unit.ended and not self.done:
            self.done = True
            raise OwnerLostError(
                "The bots unit hung up before all detached bots had ended",
                cause="the process that serves it was killed",
                remedy="Call it again: another one has taken over.",
            )


class Ender:
    """What became of the slices that were taken over. A Listener."""

    def __init__(self) -> None:
        self._paths: Final[list[str]] = []
        self._reports: Final[dict[str, ExitReport]] = {}

    def add(self, path: str) -> None:
        """This slice was taken over."""
        self._paths.append(path)

    def note(self, path: str, report: ExitReport, trouble: dict[str, Any] | None) -> None:
        """A bot of the unit has ended."""
        if path not in self._paths:
            self.add(path)
        self._reports[path] = report
        if trouble is not None:
            complain(from_dict(trouble))

    def started(self, bot: Incarnation) -> None:
        """See Listener."""

    def failed(self, bot: Incarnation, error: SwarmcgError) -> None:
        """See Listener."""

    def ended(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError | None) -> None:
        """See Listener."""
        self._reports[bot.slice.path] = report
        if trouble is not None:
            complain(trouble)

    def stuck(self, bot: Incarnation, error: StuckError) -> None:
        """See Listener."""
        if bot.given_up:
            complain(error)

    def tell(self) -> int:
        """Prints what was done; the exit status."""
        if self._paths:
            head = ("ID", "INCARNATION", "REASON", "KILLED", "NOW", "SLICE")
            table(head, map(self._cells, self._paths), sys.stdout)
        return int(any(map(os.path.exists, self._paths)))

    def _cells(self, path: str) -> tuple[str, ...]:
        now = "still there" if os.path.exists(path) else "removed"
        report = self._reports.get(path)
        if report is None:
            return "?", "?", "?", "?", now, path
        killed = str(report.leftovers.count)
        return report.bot_id, report.incarnation, report.reason, killed, now, path
