"""Owns the slices of one home: makes them, starts what runs in them, walks their ladders, reports and removes
them.

One thread and one epoll. Everything that must happen later is a deadline or a descriptor. What may keep the thread
waiting is bounded: 5 s for a lock of a home, of a journal or of packet rules that somebody else holds, 10 s for the end
of what a failed start left in its slice.
"""

import contextlib
import functools
import itertools
import logging
import os
import select
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from swarmcg.bot import ExitReport
from swarmcg.cgroup import network
from swarmcg.cgroup.enclosing import slices_inside
from swarmcg.cgroup.files import cgroup_errors
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.limits import limits_of
from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.cgroup.protection import PROTECTIONS
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import ConfigError, NetworkError, StateError, SwarmcgError
from swarmcg.flock import WITHIN_S
from swarmcg.journal import Journal
from swarmcg.keeper.spawn import Order
from swarmcg.keeper.wire import Wire
from swarmcg.resources import Abilities, LinuxResources, Plan, limits_packets, plan
from swarmcg.resources.plan import unenforceable
from swarmcg.supervisor.aftercare import Aftercare
from swarmcg.supervisor.drain import drain_file, make_drain_file, remove_drain_file
from swarmcg.supervisor.failures import KILLED, start_error
from swarmcg.supervisor.incarnation import Incarnation, Intent, Listener, Main, Nobody
from swarmcg.supervisor.keepers import Estate, Keepers, OwnKeeper, Pauses, RemoteKeeper
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.poll import Poll
from swarmcg.supervisor.remains import erase, exit_of, intent_of, main_of, record_owner, recordable

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Supervisor"]

_LOG: Final = logging.getLogger("swarmcg")
_NOTHING: Final = (None, LinuxResources())
_MOST_INSIDE: Final = 100
"""So many slices inside of a bot's are reported; a hostile bot can make any number. The log tells of the others."""
_NAMED: Final = 10


def _starvation(bot: Incarnation) -> dict[str, Any]:
    """Whether a child that was killed before its program ran died for want of memory, and of what limit."""
    return {"oom": bot.oom.starved(), "memory_max": limits_of(bot.slice).limits.get("memory.max")}


class Supervisor:
    """Everything that lives in one home and belongs to this process. For one thread.

    ``in_process`` says that this process has one thread and forks by itself; otherwise a keeper process is
    started, or the one at the end of ``wire`` is taken over. ``estate`` is what a keeper holds for our heir.
    """

    def __init__(
        self,
        home: Home,
        journal: Journal,
        *,
        in_process: bool = False,
        wire: Wire | None = None,
        estate: Estate | None = None,
    ) -> None:
        self.home: Final = home
        self.journal: Final = journal
        self.bots: Final[dict[str, Incarnation]] = {}
        self._orders: Final[dict[str, tuple[Launch, Order]]] = {}
        self.poll: Final = Poll()
        self._watched: Final[dict[str, list[int]]] = {}
        self._mains: Final[dict[str, int]] = {}
        self._inside = False
        self._abilities: Abilities | None = None
        self._keeper: Keepers = (
            OwnKeeper(self._told) if in_process else RemoteKeeper(self._told, self._keeper_lost, wire, estate)
        )
        self._keeper_pauses: Final = Pauses()
        self._keeper_at: float | None = None
        self._watch_keeper()
        self._aftercare: Final = Aftercare(home, gone=self._gone, forget=self._keeper.forget)

    def catch_up(self) -> None:
        """Takes in what a keeper that was taken over has told already: its descriptor is not readable for that."""
        self._keeper.dispatch()

    def release(self) -> None:
        """No heir is to take over from us: we end on purpose."""
        self._keeper.release()

    def close(self) -> None:
        """Lets everything go as it is."""
        self._aftercare.close()
        for key in list(self._watched):
            self._unwatch(key)
        for bot in self.bots.values():
            bot.slice.close()
        self._keeper.close()
        self.poll.close()

    def turn(self, timeout: float | None = None) -> None:
        """Waits for the next event or deadline, at most ``timeout`` seconds, and handles all that is due."""
        self.poll.turn(self._until(timeout))
        for bot in list(self.bots.values()):
            bot.contained(bot.tick)
        self._aftercare.act()
        if self._keeper_at is not None and self._keeper_at <= time.monotonic():
            self._restart_keeper()

    def _until(self, timeout: float | None) -> float | None:
        some = (self._aftercare.due, self._keeper_at, *(bot.due for bot in self.bots.values()))
        dues = [due for due in some if due is not None]
        waits = [max(0.0, min(dues) - time.monotonic())] if dues else []
        # One more millisecond: epoll rounds down, and waking before the deadline would spin.
        return min([wait + 0.001 for wait in waits] + ([] if timeout is None else [timeout]), default=None)

    def start(self, launch: Launch, order: Order, listener: Listener) -> Incarnation:
        """Makes the slice and tells the keeper to start ``order`` in it; the listener learns the outcome.

        Raises a SwarmcgError when it does not come to that; nothing is left then. ``order.procs`` is filled
        in here.
        """
        if not order.argv:
            raise ConfigError("The command is empty", remedy="Name a program to run.")
        made = self.check(launch)
        if self._keeper_at is not None:
            self._restart_keeper()  # what was in its way may be gone
        bot = self._make(launch, made, listener)
        try:
            order.procs = bot.slice.procs()
            try:
                self._begin(bot, launch, order)
            finally:
                os.close(order.procs)
        except (SwarmcgError, OSError):
            if self.bots.pop(bot.key, None) is not None:
                self._discard(bot)
            raise
        return bot

    def check(self, launch: Launch) -> Plan:
        """What can be known of a start before it is made: its reports can be kept, and this is its plan.

        Raises StateError, and what :meth:`plan` raises.
        """
        self.journal.check()
        return self.plan(launch)

    def plan(self, launch: Launch) -> Plan:
        """What the launch's resources mean on this host. Raises ResourcesError, or UnenforceableError by its
        policy.
        """
        if self._abilities is None:
            self._abilities = self.home.prepare()
            self._aftercare.prepared()
        if launch.resources in _NOTHING and launch.bandwidth is None:
            return Plan(lenient=launch.lenient)
        # Anew each time, since other slices have come and gone.
        abilities = msgspec.structs.replace(self._abilities, granted=self.home.granted())
        if limits_packets(launch.resources, launch.bandwidth):
            # Anew each time: interfaces come and go, and their qdiscs change hands.
            abilities = msgspec.structs.replace(abilities, network=network.probe())
        made = plan(
            launch.resources or LinuxResources(),
            abilities,
            lenient=launch.lenient,
            bandwidth=launch.bandwidth,
        )
        if made.refused and launch.on_unenforceable == "refuse":
            raise unenforceable(made)
        return made

    def _make(self, launch: Launch, made: Plan, listener: Listener) -> Incarnation:
        """The slice with its limits in force; all or nothing."""
        intent = Intent(
            bot_id=launch.bot_id,
            incarnation=new_incarnation(),
            grace=launch.grace,
            journal=self.journal.path,
            ours=self.home.ours,
            created=time.time(),
            drain_file=drain_file(launch),
            work_directory=launch.work_directory,
            report_file=launch.report_file,
            detached=launch.detach,
            unenforced=made.unenforced,
        )
        name = slice_name(intent.bot_id, intent.incarnation)
        held = self.home.create(name, recordable(intent))
        try:
            limits = held.apply(made)
            if limits:
                intent = msgspec.structs.replace(intent, limits=limits)
                held.remember("intent", msgspec.to_builtins(intent))
            for name in limits.keys() & set(PROTECTIONS):
                with cgroup_errors(f"{name} could not be handed down", self.home.path, limits[name]):
                    self.home.protect(held.path, name, limits[name])
        except (SwarmcgError, OSError) as e:
            # A lock of packet rules that was waited for in vain is not waited for again: bots need this thread.
            held.discard(0 if isinstance(e, NetworkError) else WITHIN_S)
            self._aftercare.settle()
            raise
        return self._own(held, intent, listener)

    def _own(self, held: Slice, intent: Intent, listener: Listener) -> Incarnation:
        return Incarnation(held, intent, listener, drain=self._drain, finish=self._finish)

    def _begin(self, bot: Incarnation, launch: Launch, order: Order) -> None:
        self.bots[bot.key] = bot
        self._orders[bot.key] = (launch, order)
        self._keeper.spawn(bot.key, order, bot.slice.fd)
        record_owner(bot.slice)  # afterwards: it is for whoever looks, and the keeper works meanwhile

    def adopt(self, held: Slice, listener: Listener, *, pidfd: int | None = None) -> Incarnation | None:
        """Takes over a slice whose owner died; the caller decides what becomes of it.

        ``pidfd`` is the main process's, and ours from now on, when the keeper will yet tell how that ends. Without it
        nobody learns its exit status any more, unless the slice has it.

        None for one that tells nothing of itself: it is emptied and removed here and now. None also for one that calls
        itself as one that we have: it is let go as it is, with nothing of its own in another's place.
        """
        intent = intent_of(held)
        if intent is None or intent.incarnation in self.bots:
            self._decline(held, pidfd, nameless=intent is None)
            return None
        record_owner(held)
        bot = self._own(held, intent, listener)
        bot.adopted = True
        self.bots[bot.key] = bot
        with contextlib.suppress(FileNotFoundError):
            held.thaw()
        bot.main = main_of(held, pidfd)
        bot.say("taken over from an owner that is gone")
        self._watch_slice(bot)
        known = exit_of(held)
        if known is not None and bot.main is not None:
            bot.main_ended(known.exit_code, known.signal, known.monotonic)
        elif pidfd is None or bot.main is None:
            self._watch_main(bot)
        return bot

    def _decline(self, held: Slice, pidfd: int | None, *, nameless: bool) -> None:
        if pidfd is not None:
            os.close(pidfd)
        if nameless:
            erase(held)
            self._aftercare.settle()
        else:
            held.close()

    def _told(self, event: dict[str, Any], fds: list[int]) -> None:
        """The keeper tells of one of its children."""
        bot = self.bots.get(event["key"])
        if bot is not None and event["event"] == "started" and not bot.adopted:
            self._started(bot, event, fds.pop())
        elif bot is not None and event["event"] == "failed":
            if bot.adopted:
                self._unwatch_main(
                    bot.key
                )  # an older keeper told nothing of it when it handed the slice over
                bot.contained(bot.never_started)
            else:
                self._failed(bot, event)
        elif bot is not None and event["event"] == "ended" and bot.main is not None:
            end = functools.partial(
                bot.main_ended, event["exit_code"], event["signal"], event.get("monotonic")
            )
            bot.contained(end)
        for fd in fds:
            os.close(fd)

    def _started(self, bot: Incarnation, event: dict[str, Any], pidfd: int) -> None:
        bot.main = Main(pid=event["pid"], pidfd=pidfd, at=time.time(), monotonic=time.monotonic())
        self._watch_slice(bot)
        bot.say("started: pid %d, slice %s", event["pid"], bot.slice.path)
        bot.listener.started(bot)
        self._clear(bot, *self._watched[bot.key])  # a file that was never read has an event
        bot.look()

    def _failed(self, bot: Incarnation, event: dict[str, Any]) -> None:
        _, order = self._orders[bot.key]
        del self.bots[bot.key]
        facts = _starvation(bot) if event["step"] == KILLED else {}
        error = start_error(event, order, **facts)
        self._discard(bot)
        bot.say("not started: %s", error)
        bot.listener.failed(bot, error)

    def _discard(self, bot: Incarnation) -> None:
        """Removes the slice of a start that failed, and whatever a half-started child left in it."""
        self._orders.pop(bot.key, None)
        self._unwatch(bot.key)
        erase(bot.slice)
        self._keeper.forget(bot.key)  # afterwards: should we be killed meanwhile, its heir does it
        self._aftercare.settle()

    def _watch_keeper(self) -> None:
        self._keeper_fd = self._keeper.fileno()
        self.poll.watch(self._keeper_fd, self._keeper.dispatch)

    def _keeper_lost(self) -> None:
        """The keeper died: what it had started goes on, but nobody will learn how it ends."""
        _LOG.warning("the keeper died; bots go on, and their exit status will be unknown")
        self.poll.ignore(self._keeper_fd)
        self._keeper.close()
        for bot in list(self.bots.values()):
            if bot.main is None and not bot.adopted:
                self._failed(bot, {"step": "keeper", "errno": None, "cause": "the keeper died", "path": None})
            elif not bot.settled():
                self._watch_main(bot)
        self._keeper_at = time.monotonic() + self._keeper_pauses.next(time.monotonic())

    def _restart_keeper(self) -> None:
        """Puts a new keeper in the place of one that was lost. Where that fails, for want of descriptors or processes
        say, bots are ended and reported without one, and it is tried again later.
        """
        trouble = self._keeper.restart()
        if trouble is None:
            self._keeper_at = None
            self._watch_keeper()
            return
        pause = self._keeper_pauses.next(time.monotonic())
        self._keeper_at = time.monotonic() + pause
        _LOG.error("no new keeper can be started, which is tried again in %g s: %s", pause, trouble)

    def _watch_main(self, bot: Incarnation) -> None:
        """Without a keeper, a pidfd still tells when the main process is gone."""
        if bot.main is None or bot.main.pidfd < 0:
            bot.contained(bot.main_lost)
            return
        # No copy of it: the keeper may have died for want of descriptors.
        self._mains[bot.key] = pidfd = bot.main.pidfd
        # The pidfd of a dead process stays readable: one event is enough.
        self.poll.watch(
            pidfd, functools.partial(bot.contained, bot.main_lost), select.EPOLLIN | select.EPOLLONESHOT
        )

    def _watch_slice(self, bot: Incarnation) -> None:
        """Wakes up whenever the slice becomes empty or frozen, or something is killed for want of memory."""
        fds = self._watched.setdefault(bot.key, [])
        for name in ("cgroup.events", "memory.events"):
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(f"{bot.slice.path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
                fds.append(fd)
                self.poll.watch(fd, functools.partial(self._look, bot, fd), select.EPOLLPRI)

    def _look(self, bot: Incarnation, fd: int) -> None:
        self._clear(bot, fd)
        bot.contained(bot.look)

    def _clear(self, bot: Incarnation, *fds: int) -> None:
        """Clears the events of files that are going to be looked at (kernfs is level-triggered)."""
        try:
            for fd in fds:
                os.pread(fd, 4096, 0)
        except OSError:  # somebody removed the slice: an event for ever
            self._unwatch(bot.key)

    def _unwatch(self, key: str) -> None:
        self._unwatch_main(key)
        for fd in self._watched.pop(key, ()):
            self.poll.ignore(fd)
            os.close(fd)

    def _unwatch_main(self, key: str) -> None:
        pidfd = self._mains.pop(key, None)
        if pidfd is not None:
            self.poll.ignore(pidfd)

    def _drain(self, bot: Incarnation) -> None:
        try:
            self._ask_to_drain(bot)
        except SwarmcgError as e:
            _LOG.error("%s", e)  # the deadline, if there is one, goes on to terminate

    def _ask_to_drain(self, bot: Incarnation) -> None:
        launch, order = self._orders.get(bot.key, (None, None))
        how = launch.drain if launch is not None else "sigterm"
        if not isinstance(how, str):
            assert order is not None  # noqa: S101  launch and order come together
            self._run_in(bot, list(how), order.env)
            return
        if "file" in how and bot.intent.drain_file is not None:
            make_drain_file(bot.intent.drain_file)
        if "sigterm" in how:
            bot.tell_main()

    def _run_in(self, bot: Incarnation, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Starts a helper inside the bot's slice; what becomes of it, the slice's end decides."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        procs = bot.slice.procs()
        try:
            cwd = bot.intent.work_directory or "/"
            helper = Order(argv, env, procs=procs, cwd=cwd, stdio=(null, null, null), oom_score_adj=0)
            self._keeper.spawn(f"{bot.key}/drain", helper, None)
        finally:
            os.close(procs)
            os.close(null)

    def _finish(self, bot: Incarnation) -> None:
        """The slice is empty: counters read, report on disk, slice removed; in this order, so that a crash
        loses nothing.
        """
        try:
            report = bot.report()
        except OSError:
            self._aftercare.finish_again(bot, self._finish)
            raise
        self._finish_inside(bot)
        trouble = self._keep(bot, report)
        self._unwatch(bot.key)
        if bot.main is not None:
            bot.main.close()
        if bot.intent.drain_file is not None:
            remove_drain_file(bot.intent.drain_file)
        if trouble is None:
            self._aftercare.remove(bot, report)
        else:
            self._aftercare.leave(bot, report, trouble)

    def _finish_inside(self, bot: Incarnation) -> None:
        """Reports and removes the slices that were made inside of this one, whose owners lived there and are gone.

        Innermost first, so that none of them has any left when its own turn comes.
        """
        if self._inside:
            return
        self._inside = True
        found = slices_inside(bot.slice.path)
        try:
            for path in reversed(list(itertools.islice(found, _MOST_INSIDE))):
                bot.contained(functools.partial(self._finish_one, path))
        finally:
            self._inside = False
        if rest := [os.path.basename(path) for path in found]:
            names = ", ".join(rest[:_NAMED]) + (", …" if len(rest) > _NAMED else "")
            bot.warn("%d more slices inside of its own are removed without a report: %s", len(rest), names)

    def _finish_one(self, path: str) -> None:
        held = Slice.adopt(path)
        bot = None if held is None else self.adopt(held, Nobody())
        if bot is not None and self.bots.get(bot.key) is bot:
            bot.main_lost()  # not reaped yet, and nothing to wait for: whose child it was is gone

    def _keep(self, bot: Incarnation, report: ExitReport) -> StateError | None:
        journal = Journal(bot.intent.journal)
        try:
            if not (bot.adopted and journal.knows(report.incarnation)):
                journal.append(report)
        except StateError as e:
            return e
        return None

    def _gone(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError | None) -> None:
        del self.bots[bot.key]
        self._orders.pop(bot.key, None)
        bot.listener.ended(bot, report, trouble)  # first, since somebody waits for it
        bot.say("ended: %s, exit code %s, signal %s", report.reason, report.exit_code, report.signal)
        if trouble is not None:
            bot.say("%s", trouble)
