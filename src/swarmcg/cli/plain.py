"""The foreground on macOS and Windows, with Python's own signal handlers."""

import contextlib
import signal
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

from swarmcg.bot import ExitReport, StartedBot
from swarmcg.cli.orders import DRAIN, ENDING, Orders
from swarmcg.elsewhere.engine import Engine
from swarmcg.errors import WaitTimeout
from swarmcg.supervisor.launch import Launch

__all__ = ["Watch", "run_command"]

_WAKE_S: Final = 0.5
"""Windows runs a handler only between two waits of the main thread."""


class Watch:
    """From its making on, signals are orders about the bot. For the main thread."""

    def __init__(self, bot: StartedBot) -> None:
        self._bot: Final = bot
        self._orders: Final = Orders(bot)
        for number in (*ENDING, *(() if DRAIN is None else (DRAIN,))):
            signal.signal(number, self._heed)

    def until_end(self) -> ExitReport:
        """The bot's report. Raises what its ``wait`` raises."""
        while True:
            with contextlib.suppress(WaitTimeout):
                return self._bot.wait(_WAKE_S)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._orders.heed(number)


def run_command(
    launch: Launch, argv: Sequence[str], env: Mapping[str, str], *, cwd: str | None, home: str | None
) -> ExitReport:
    """Runs the command in our place, as the root of a tree, and returns the report of its end.

    A signal that our caller ignored stays ignored. SIGINT is left to the command, which the terminal sends it as
    well; who sent it cannot be told here. Raises a SwarmcgError when the command cannot be started or its report not
    be kept.
    """
    engine = Engine(home, enter_home=True)
    ending = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    for number in ending:
        signal.signal(number, _wait_for_start)
    try:
        bot = engine.start(launch, argv, env, cwd=cwd, stdio=(0, 1, 2))
        foreground = _Foreground(bot)
        for number in ending:
            signal.signal(number, foreground.heed)
        report = foreground.until_end()
    finally:
        engine.close()
    if bot.trouble is not None:
        raise bot.trouble
    return report


def _wait_for_start(number: int, frame: FrameType | None) -> None:
    """The start takes milliseconds; a signal that comes in them is as one that came before."""
    del frame
    raise SystemExit(128 + number)


class _Foreground:
    """A command of ours: what ends us ends it by the ladder, and a second time at once."""

    def __init__(self, bot: StartedBot) -> None:
        self._bot: Final = bot
        self._stopping = False

    def heed(self, number: int, frame: FrameType | None) -> None:
        """A signal arrived."""
        del frame
        if number != signal.SIGINT:
            self._bot.terminate(0 if self._stopping else None)
            self._stopping = True

    def until_end(self) -> ExitReport:
        """The command's report."""
        while True:
            with contextlib.suppress(WaitTimeout):
                return self._bot.wait(_WAKE_S)
