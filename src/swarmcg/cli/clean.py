"""``swarmcg clean``: slices whose owner is gone, listed or ended."""

import contextlib
import errno
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from swarmcg.cgroup import network
from swarmcg.cgroup.find import find_homes
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.limits import tenants
from swarmcg.cgroup.slice import Slice
from swarmcg.cli import options, sizes
from swarmcg.cli.complaint import complain
from swarmcg.cli.detached import check_detach
from swarmcg.cli.ending import Detached, Ender, not_detached
from swarmcg.cli.orders import ending, say
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.cli.signalfd import Signals
from swarmcg.cli.tables import table
from swarmcg.errors import HomeError
from swarmcg.journal import Journal
from swarmcg.keeper.wire import Wire
from swarmcg.places import places
from swarmcg.supervisor.remains import intent_of
from swarmcg.supervisor.supervisor import Supervisor
from swarmcg.supervisor.unit import inhabited, reach

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

exit status: without --yes 0 when there is none, else 1; with --yes 0 when all are gone, else 1; 2 when swarmcg fails,
when a home that was named is not there, and when a bot that was named does not run detached (the others are ended).

examples:
  swarmcg clean
  swarmcg clean --yes --grace 10s
  swarmcg clean --yes --detached bot-17"""


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
    _check(asked.detached, asked.home, yes=asked.yes, grace=grace)
    wire = reach() if asked.home is None else None  # whoever serves the unit takes over what is left in it
    homes = _homes(asked.home)
    if not asked.yes:
        return _list(homes)
    if asked.detached is not None and wire is None:
        _no_unit(asked.detached)
    return _end(homes, grace, None if asked.detached is None else wire, asked.detached or None)


def _check(detached: list[str] | None, home: str | None, *, yes: bool, grace: float | None) -> None:
    """Raises UsageError for a call that ends nothing, or might end more than was meant."""
    if detached is not None:
        check_detach(home, "--detached")
        if "" in detached:
            raise UsageError(
                "An id that --detached names is empty",
                cause="an empty id names no bot, and all bots were not asked for",
                remedy="See whether a variable was not set.",
            )
    if yes or (grace is None and detached is None):
        return
    ids = " ".join(map(shlex.quote, detached or ["BOT_ID"]))
    raise UsageError(
        "--grace and --detached need --yes",
        cause="without it slices are only listed",
        remedy="swarmcg clean --yes --grace TIME ends slices without an owner."
        if detached is None
        else f"To end that bot, and slices without an owner: swarmcg clean --yes --detached {ids}",
    )


def _homes(explicit: str | None) -> list[Home]:
    """Where to look. Raises HomeError where a home was named that is not there."""
    homes = find_homes(explicit)
    if explicit is not None and not os.path.isdir(homes[0].path):
        raise HomeError(
            "There is no such home",
            path=homes[0].path,
            errno=errno.ENOENT,
            remedy="See how it is spelled; a home that swarmcg made is removed with its last slice.",
        )
    return homes


def _no_unit(ids: Sequence[str]) -> None:
    """Raises ConfigError when bots were named; that none of all is to be ended is no error."""
    if ids:
        raise not_detached(ids[0], (), foreground=_in_foreground(ids[0]), unit=False)
    say("there is no bots unit here, so nothing runs detached")


def _in_foreground(wanted: str) -> bool:
    return any(wanted in {tenant.bot_id, tenant.incarnation} for tenant in tenants(inhabited(None)))


def _parser() -> Parser:
    parser = Parser("swarmcg clean", "Lists slices that nobody owns any more, and ends them.", _EPILOG)
    parser.add_argument(
        "--yes",
        action="store_true",
        help="end them by the stop ladder: SIGTERM to every process, the grace period, then the kill",
    )
    parser.add_argument(
        "--grace", metavar="TIME", help="the grace period, as in 90s (default: each slice's own)"
    )
    parser.add_argument(
        "--detached",
        nargs="*",
        metavar="ID",
        help="with --yes: end detached bots as well, those of these ids or incarnations, or without any ALL",
    )
    options.add_home(parser)
    return parser


def _list(homes: Sequence[Home]) -> int:
    # Only looked at: to take one over for its line would hide it from another clean --yes.
    looks = (_seen(path) for home in homes for path in home.abandoned())
    found = [look for look in looks if look is not None]
    if found:
        table(("ID", "INCARNATION", "PROCESSES", "AGE", "SLICE"), map(_cells, found), sys.stdout)
    rules = network.orphans(end=False)
    for name in rules:
        print(f"of a slice that is gone: {name}")
    return int(bool(found or rules))


def _seen(path: str) -> Ownerless | None:
    """What a slice tells of itself; None when it has gone meanwhile."""
    try:
        held = Slice.visit(path)
    except FileNotFoundError:
        return None
    with contextlib.closing(held):
        intent = intent_of(held)
        return Ownerless(
            path=path,
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
    signals = Signals(ending())
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
        homes[0].settle()  # what a start left that was killed before it made its slice
    finally:
        supervisor.close()
        signals.close()
    status = ender.tell()
    for name in network.orphans(end=True):
        print(f"removed, of a slice that is gone: {name}")
    return status if detached is None else _tell_unknown(detached.unknown) or status


def _tell_unknown(unknown: Mapping[str, Sequence[str]]) -> int:
    """Complains about each; the exit status, 0 where there is none."""
    for wanted, running in unknown.items():
        complain(not_detached(wanted, running, foreground=_in_foreground(wanted), unit=True))
    return FAILURE if unknown else 0


def _hurry(supervisor: Supervisor, signals: Signals, detached: "Detached | None") -> None:
    """A signal ends all grace periods, rather than leave half of the work behind."""
    for _ in signals.arrived():
        for bot in list(supervisor.bots.values()):
            bot.stop(0)
        if detached is not None:
            detached.order(0)
