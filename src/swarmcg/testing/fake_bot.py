"""A bot that is none: no process, no cgroup; it ends when it is told to."""

import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from swarmcg.bot import GRACE_INTERVAL, ExitReport, Reason, Resources
from swarmcg.errors import UpdateError, WaitTimeout

__all__ = ["FakeBot"]


class FakeBot:
    """A :class:`~swarmcg.bot.Bot` without anything behind it, for tests of what handles bots.

    ``drain`` and ``terminate`` are called with the bot whenever it is drained or terminated before its end,
    as often as that happens; left out, each ends the bot at once. ``stop()`` ends it, with the reason
    ``terminated`` when ``terminate_or_kill`` was called before, else ``exited``, both with exit code 0.
    ``stop_with(error)`` makes ``wait`` raise the error. What came first holds; any further call of any method
    but ``update`` is harmless. ``updates`` lists the resources of every update so far; nothing is limited by
    them. No thread is started, and every method may be called from any thread.
    """

    def __init__(
        self,
        drain: Callable[["FakeBot"], object] | None = None,
        terminate: Callable[["FakeBot"], object] | None = None,
        *,
        bot_id: str = "fake-bot",
    ) -> None:
        self._drain: Final = drain or FakeBot.stop
        self._terminate: Final = terminate or FakeBot.stop
        self._bot_id: Final = bot_id
        self._started_at: Final = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._started: Final = time.monotonic()
        self._changed: Final = threading.Condition()
        self.updates: Final[list[Resources]] = []
        self._end: ExitReport | BaseException | None = None
        self._terminated = False
        self._drain_by: float | None = None

    def stop(self) -> None:
        """Ends the bot, with exit code 0; harmless when it has ended."""
        with self._changed:
            self._finish(self._report("terminated" if self._terminated else "exited", exit_code=0))

    def stop_with(self, error: BaseException) -> None:
        """Ends the bot so that every ``wait`` raises the error."""
        with self._changed:
            self._finish(error)

    def wait(self, timeout: float | None = None) -> ExitReport:
        """The report of the bot's end, the same one every time; see :meth:`swarmcg.bot.Bot.wait`.

        Raises WaitTimeout when ``timeout`` seconds pass first, and what :meth:`stop_with` was given.

        A drain deadline that passes meanwhile has the bot terminated by the thread that waits.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                late = self._await_end(until)
            if not late:
                break
            self._terminate_now()
        if self._end is None:
            raise WaitTimeout(
                "The bot has not ended",
                value=timeout,
                cause="the time-out passed first; the bot goes on",
                remedy="Wait longer, or call terminate_or_kill.",
            )
        if isinstance(self._end, BaseException):
            raise self._end
        return self._end

    def drain(self, deadline: float | None = None) -> None:
        """Calls the drain function; see :meth:`swarmcg.bot.Bot.drain`.

        The deadline is noticed by whoever waits when it passes.
        """
        with self._changed:
            if self._end is not None:
                return
            if deadline is not None:
                self._drain_by = time.monotonic() + deadline
                self._changed.notify_all()
        self._drain(self)

    def terminate_or_kill(self, grace: float | None = None) -> None:
        """Calls the terminate function and returns when the bot has ended; see the protocol.

        When the grace period in seconds (None: GRACE_INTERVAL) passes first, the bot ends as one that was
        killed does.
        """
        until = time.monotonic() + (GRACE_INTERVAL if grace is None else grace)
        if not self._terminate_now():
            return
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None, until - time.monotonic())
            self._finish(self._report("killed-after-grace", signal=9))

    def update(self, resources: Resources) -> None:
        """Adds the resources to ``updates``; raises UpdateError after the end, as every bot does."""
        with self._changed:
            if self._end is not None:
                raise UpdateError(
                    "The limits of a bot that has ended cannot be changed",
                    value=self._bot_id,
                    remedy="Start it anew with other limits.",
                )
            self.updates.append(resources)

    def _terminate_now(self) -> bool:
        """Calls the terminate function; False when there is nothing left to terminate."""
        with self._changed:
            if self._end is not None:
                return False
            self._terminated = True
            self._drain_by = None
        self._terminate(self)
        return True

    def _await_end(self, until: float | None) -> bool:
        """Waits until the bot has ended, the time is over, or (True) a drain deadline has passed."""
        while self._end is None:
            now = time.monotonic()
            if self._drain_by is not None and self._drain_by <= now:
                return True
            if until is not None and until <= now:
                return False
            moments = [moment for moment in (until, self._drain_by) if moment is not None]
            self._changed.wait(min(moments) - now if moments else None)
        return False

    def _finish(self, end: ExitReport | BaseException) -> None:
        if self._end is None:
            self._end = end
            self._changed.notify_all()

    def _report(
        self, reason: Reason, *, exit_code: int | None = None, signal: int | None = None
    ) -> ExitReport:
        return ExitReport(
            bot_id=self._bot_id,
            incarnation=secrets.token_hex(8),
            reason=reason,
            exit_code=exit_code,
            signal=signal,
            started_at=self._started_at,
            duration_s=time.monotonic() - self._started,
        )
