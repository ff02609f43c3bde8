"""A bot without a slice, as the library's user has it in hand."""

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from swarmcg.bot import ExitReport, Resources, check_grace
from swarmcg.elsewhere.journal import Journal
from swarmcg.elsewhere.limits import refusal, unenforced
from swarmcg.elsewhere.walk import Acts, Life, Walk
from swarmcg.errors import (
    ConfigError,
    OwnerLostError,
    StateError,
    StuckError,
    SwarmcgError,
    UpdateError,
    WaitTimeout,
)
from swarmcg.report_file import write_report
from swarmcg.resources import LinuxResources
from swarmcg.supervisor.drain import drain_file, remove_drain_file

__all__ = ["TreeBot"]

_LOG: Final = logging.getLogger("swarmcg")


class TreeBot:
    """A started bot; see :class:`swarmcg.Bot`. Made by :meth:`swarmcg.elsewhere.engine.Engine.start` only.

    ``pid`` is its main process, ``incarnation`` names this life of it; ``slice`` is None, since there is none.
    ``trouble`` is what went wrong after its end, if anything did. Two threads live as long as the bot: one waits for
    its main process, the other walks the ladder.
    """

    def __init__(self, life: Life, journal: Journal, gone: Callable[["TreeBot"], None]) -> None:
        self.bot_id: Final = life.launch.bot_id
        self.pid: Final = life.process.pid
        self.incarnation: Final = life.incarnation
        self.slice: Final = None
        self.trouble: SwarmcgError | None = None
        self._life: Final = life
        self._journal: Final = journal
        self._gone: Final = gone
        self._changed: Final = threading.Condition()
        self._asked: Final[deque[Callable[[], None]]] = deque()
        self._report: ExitReport | None = None
        self._lost: SwarmcgError | None = None
        self._stuck: StuckError | None = None
        self._walk: Final = Walk(life, stuck=self._note_stuck, finish=self._finish)

    def __repr__(self) -> str:
        return f"<bot {self.bot_id!r} pid {self.pid} without a slice>"

    def begin(self) -> None:
        """Starts the two threads; called once."""
        for name, work in (("walk the ladder of", self._walk_down), ("wait for", self._await_main)):
            threading.Thread(target=work, name=f"{name} {self.bot_id!r}", daemon=True).start()

    def wait(self, timeout: float | None = None) -> ExitReport:
        """Blocks until nothing of the bot's tree is found any more, and returns the report, the same every time.

        Raises WaitTimeout (also a TimeoutError) when ``timeout`` seconds pass first, OwnerLostError when the bot
        could not be watched to its end. When the report could not be kept in the journal, ``trouble`` says why.
        """
        with self._changed:
            if not self._changed.wait_for(self._is_over, timeout):
                raise WaitTimeout(
                    f"Bot {self.bot_id!r} has not ended",
                    value=timeout,
                    cause=f"it was waited for {timeout} seconds",
                    remedy="Wait longer, or terminate it.",
                )
            return self._outcome()

    def drain(self, deadline: float | None = None) -> None:
        """Asks the bot to finish its task and end; see :meth:`swarmcg.Bot.drain`. Raises ConfigError for a bad
        deadline.
        """
        within = None if deadline is None else check_grace(deadline)
        self._ask(functools.partial(self._walk.ladder.drain, time.monotonic(), within))

    def terminate(self, grace: float | None = None) -> None:
        """Starts what :meth:`terminate_or_kill` does, and returns at once. Raises ConfigError for a bad grace."""
        within = None if grace is None else check_grace(grace)
        self._stuck = None
        self._ask(functools.partial(self._walk.ladder.terminate, time.monotonic(), within))

    def terminate_or_kill(self, grace: float | None = None) -> None:
        """Terminates every process of the tree, then kills them, and blocks until none is found any more.

        On Windows, which has no signal that asks, the first is already the kill. Raises StuckError when processes
        survive it, and ConfigError for a bad grace; see :meth:`swarmcg.Bot.terminate_or_kill`.
        """
        self.terminate(grace)
        with self._changed:
            self._changed.wait_for(lambda: self._is_over() or self._stuck is not None)
            if self._is_over():
                self._outcome()
            elif self._stuck is not None:
                raise self._stuck

    def update(self, resources: Resources) -> None:
        """Changes nothing, since nothing can be limited here, and says so: raises UnenforceableError where the
        policy is to refuse that, else the limits are reported as not in force.

        Raises UpdateError after the end, ResourcesError for what makes no sense.
        """
        if not isinstance(resources, LinuxResources):
            raise ConfigError("The resources are no LinuxResources", value=repr(resources))
        rows = unenforced(resources)
        if rows and self._life.launch.on_unenforceable == "refuse":
            raise refusal(rows)
        fields = {row.field for row in rows}
        with self._changed:
            if self._is_over():
                raise UpdateError(
                    "The limits of a bot that has ended cannot be changed",
                    value=self.bot_id,
                    remedy="Start it anew with other limits.",
                )
            kept = tuple(row for row in self._walk.unenforced if row.field not in fields)
            self._walk.unenforced = kept + rows

    def _is_over(self) -> bool:
        return self._report is not None or self._lost is not None

    def _outcome(self) -> ExitReport:
        if self._report is None:
            assert self._lost is not None  # noqa: S101  one of them is there when it is over
            raise self._lost
        return self._report

    def _ask(self, ladder: Callable[[], Acts]) -> None:
        self._post(lambda: self._walk.act(ladder()))

    def _post(self, work: Callable[[], None]) -> None:
        """Hands work to the thread that walks."""
        with self._changed:
            self._asked.append(work)
            self._changed.notify_all()

    def _await_main(self) -> None:
        status = self._life.process.wait()
        at = time.monotonic()
        self._post(lambda: self._walk.main_ended(status, at))

    def _walk_down(self) -> None:
        try:
            while not self._walk.over:
                for work in self._next():
                    work()
                self._walk.go_on()
        except BaseException as e:
            with self._changed:
                self._lost = _not_watched(self.bot_id, e)
                self._changed.notify_all()
            raise
        finally:
            self._gone(self)

    def _next(self) -> list[Callable[[], None]]:
        """What was posted, as soon as there is something or the walk has something due."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked, self._walk.patience())
            posted = list(self._asked)
            self._asked.clear()
        return posted

    def _note_stuck(self, error: StuckError) -> None:
        _LOG.error("%s", error)
        with self._changed:
            self._stuck = error
            self._changed.notify_all()

    def _finish(self, report: ExitReport) -> None:
        """The report is on disk before anybody is told of the end."""
        self.trouble = self._keep(report)
        if self.trouble is not None:
            _LOG.error("%s", self.trouble)
        path = drain_file(self._life.launch)
        if path is not None:
            remove_drain_file(path)
        with self._changed:
            self._report = report
            self._changed.notify_all()

    def _keep(self, report: ExitReport) -> StateError | None:
        try:
            self._journal.append(report)
            if self._life.launch.report_file is not None:
                write_report(self._life.launch.report_file, report)
        except StateError as e:
            return e
        return None


def _not_watched(bot_id: str, e: BaseException) -> OwnerLostError:
    return OwnerLostError(
        f"Bot {bot_id!r} could not be watched to its end",
        cause=f"the thread that walks its ladder failed: {e!r}",
        remedy="See whether it still runs, and end it by hand.",
    )
