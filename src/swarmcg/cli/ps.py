"""``swarmcg ps``: the bots that run on this host, and in what state each of them is."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec

from swarmcg.cgroup.home import Home
from swarmcg.cgroup.limits import Tenant, tenants
from swarmcg.cgroup.slice import Slice
from swarmcg.cli import options
from swarmcg.cli.clean import age
from swarmcg.cli.orders import say
from swarmcg.cli.parser import Parser
from swarmcg.cli.tables import table
from swarmcg.errors import CgroupError, HomeError
from swarmcg.supervisor.remains import intent_of, main_of, owner_of
from swarmcg.supervisor.unit import inhabited

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["FAILURE", "USAGE", "main"]

FAILURE: Final = 1
USAGE: Final = 2

_EPILOG: Final = """\
A bot is listed from the moment its program was started until its slice is removed. As an ordinary user: your own
bots. Nothing is changed, and no owner is disturbed.

states:
  running    its program runs
  draining   it was told to finish its task and end
  stopping   it is being ended, or its program has ended and what it left behind is being killed
  frozen     somebody has frozen its slice
  ownerless  whoever started and kept it was killed: swarmcg clean --yes ends it
  unknown    whether it has an owner cannot be told now
'detached' is added to the state of a bot that outlives the command that started it. OWNER is the process that keeps
the bot, and ends it when it is ended itself: swarmcg run, the helper of swarmcg bot or of a program that uses
the library, or the bots unit. To end a bot, signal the swarmcg run or swarmcg bot that started it, and never a helper.

exit status: 0 also when no bot runs; 1 when the host cannot be looked at; 2 when the call makes no sense.

examples:
  swarmcg ps
  swarmcg ps --json"""

State = Literal["running", "draining", "stopping", "frozen", "ownerless", "unknown"]


class Bot(msgspec.Struct, frozen=True, kw_only=True):
    """A bot as ``--json`` shows it. ``pid`` is None when its main process has ended, ``owner_pid`` where nobody owns
    it or that cannot be told, ``memory_bytes`` and ``tasks`` (processes and threads) where the kernel does not count
    them.
    """

    bot_id: str
    incarnation: str
    pid: int | None
    owner_pid: int | None
    state: State
    detached: bool
    age_s: float
    memory_bytes: int | None
    tasks: int | None
    slice: str


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked = _parser().parse_args(words)
    homes = {home.path: home for home in _homes(asked.home)}
    if asked.home is not None and not all(map(os.path.isdir, homes)):
        raise HomeError(
            "There is no such home",
            path=next(iter(homes)),
            errno=errno.ENOENT,
            remedy="Name the directory that --home named when the bots were started, or none at all.",
        )
    found = [bot for home in homes.values() for bot in _bots(home)]
    if asked.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        head = ("ID", "INCARNATION", "PID", "OWNER", "STATE", "AGE", "MEMORY", "TASKS", "SLICE")
        table(head, map(_cells, found), sys.stdout)
    return 0


def _homes(named: str | None) -> list[Home]:
    try:
        return inhabited(named)
    except HomeError as e:
        if named is not None or e.errno != errno.EACCES:
            raise
        say("no cgroup is delegated to this user, who can have no bots then; root sees all")
        return []


def _parser() -> Parser:
    parser = Parser("swarmcg ps", "Lists the bots that run on this host.", _EPILOG)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    options.add_home(parser)
    return parser


def _bots(home: Home) -> Iterator[Bot]:
    found = tenants([home])
    unowned: frozenset[str] | None = None
    with contextlib.suppress(OSError, CgroupError):  # somebody else has held the home's lock for too long
        unowned = home.unowned(tenant.path for tenant in found)
    for tenant in found:
        with contextlib.suppress(FileNotFoundError):  # it went meanwhile
            yield _seen(tenant, None if unowned is None else tenant.path not in unowned)


def _seen(tenant: Tenant, owned: bool | None) -> Bot:
    held = Slice.visit(tenant.path)
    try:
        intent, pid, began = intent_of(held), None, None
        running = main_of(held)
        if running is not None:
            began, pid = running.at, running.pid if running.pidfd >= 0 else None
            running.close()
        return Bot(
            bot_id=tenant.bot_id,
            incarnation=tenant.incarnation,
            pid=pid,
            owner_pid=owner_of(held) if owned else None,
            state=state(
                owned=owned,
                stopping=pid is None or held.recall("stopping") is not None,
                frozen=held.frozen(),
                draining=held.recall("draining") is not None,
            ),
            detached=intent is not None and intent.detached,
            age_s=round(max(0.0, time.time() - (began or os.stat(held.fd).st_ctime)), 3),
            memory_bytes=held.cgroup.files.look("memory_current"),
            tasks=held.cgroup.files.look("pids_current"),
            slice=tenant.path,
        )
    finally:
        held.close()


def state(*, owned: bool | None, stopping: bool, frozen: bool, draining: bool) -> State:
    """The one word for what holds. Stopping freezes a slice for a moment, so it comes first."""
    if owned is False:
        return "ownerless"
    if stopping:
        return "stopping"
    if frozen:
        return "frozen"
    if owned is None:
        return "unknown"
    return "draining" if draining else "running"


def _cells(bot: Bot) -> tuple[str, ...]:
    return (
        bot.bot_id,
        bot.incarnation,
        "-" if bot.pid is None else str(bot.pid),
        "-" if bot.owner_pid is None else str(bot.owner_pid),
        f"{bot.state}, detached" if bot.detached else bot.state,
        age(bot.age_s),
        "-" if bot.memory_bytes is None else f"{bot.memory_bytes / (1 << 20):.1f} MiB",
        "-" if bot.tasks is None else str(bot.tasks),
        bot.slice,
    )
