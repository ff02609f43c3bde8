"""Waiting for a bot and for signals at once, on Linux."""

import contextlib
import os
import select
import signal
import sys
import threading
from typing import Final

from swarmcg.bot import Config, ExitReport, Row, StartedBot
from swarmcg.cgroup.limits import recorded
from swarmcg.cgroup.slice import Slice
from swarmcg.cli.orders import Orders, ending
from swarmcg.cli.signalfd import Signals

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Watch", "unenforced"]


def unenforced(bot: StartedBot, config: Config) -> tuple[Row, ...]:
    """What was asked for and is not in force, as recorded with the bot's slice; nothing when that is gone already."""
    del config
    with contextlib.suppress(OSError):
        held = Slice.visit(bot.slice or "")
        try:
            return recorded(held).unenforced
        finally:
            held.close()
    return ()


class Watch:
    """Waits for a bot and for signals at once: a thread waits for the bot, this one for both.

    From its making on, signals are orders about the bot.
    """

    def __init__(self, bot: StartedBot, grace: float) -> None:
        self._signals: Final = Signals([*ending(), signal.SIGUSR1])
        self._bot: Final = bot
        self._orders: Final = Orders(bot, grace)
        self._outcome: ExitReport | BaseException | None = None

    def until_end(self) -> ExitReport:
        """The bot's report. Raises what its ``wait`` raises."""
        done = os.eventfd(0)
        waiter = threading.Thread(target=self._wait, args=(done,), name="wait for the bot", daemon=True)
        waiter.start()
        poll = select.poll()
        for fd in (self._signals.fileno(), done):
            poll.register(fd, select.POLLIN)
        while done not in dict(poll.poll()):
            for arrival in self._signals.arrived():
                self._orders.heed(arrival.number)
        waiter.join()
        os.close(done)
        self._signals.close()
        if isinstance(self._outcome, ExitReport):
            return self._outcome
        assert self._outcome is not None  # noqa: S101  the waiter left one
        raise self._outcome

    def _wait(self, done: int) -> None:
        try:
            self._outcome = self._bot.wait()
        except BaseException as e:  # noqa: BLE001  raised again in the main thread
            self._outcome = e
        finally:
            os.eventfd_write(done, 1)
