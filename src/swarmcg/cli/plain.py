"""The foreground on macOS and Windows, with Python's own signal handlers."""

import contextlib
import signal
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

from swarmcg.bot import Config, ExitReport, Row, StartedBot
from swarmcg.cli.orders import DRAIN, Orders, ending
from swarmcg.cli.outcome import trouble_after
from swarmcg.elsewhere import limits
from swarmcg.elsewhere.engine import Engine
from swarmcg.errors import WaitTimeout
from swarmcg.resources import LinuxResources
from swarmcg.supervisor.launch import Launch

__all__ = ["Watch", "run_command", "unenforced"]

_WAKE_S: Final = 0.5
"""Windows runs a handler only between two waits of the main thread."""


def unenforced(bot: StartedBot, config: Config) -> tuple[Row, ...]:
    """What was asked for and is not in force."""
    del bot
    asked = config.resources if isinstance(config.resources, LinuxResources) else None
    return limits.unenforced(asked, config.bandwidth)


class Watch:
    """From its making on, signals are orders about the bot. For the main thread."""

    def __init__(self, bot: StartedBot, grace: float) -> None:
        self._bot: Final = bot
        self._orders: Final = Orders(bot, grace)
        for number in (*ending(), *(() if DRAIN is None else (DRAIN,))):
            signal.signal(number, self._heed)

    def until_end(self) -> ExitReport:
        """The bot's report. Raises what its ``wait`` raises."""
        return _until_end(self._bot)

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
    foreground = _Foreground()
    for number in ending():
        signal.signal(number, foreground.heed)
    try:
        bot = engine.start(launch, argv, env, cwd=cwd, stdio=(0, 1, 2))
        foreground.follow(bot)
        report = _until_end(bot)
    finally:
        engine.close()
    if bot.trouble is not None:
        raise trouble_after(report, bot.trouble)
    return report


def _until_end(bot: StartedBot) -> ExitReport:
    while True:
        with contextlib.suppress(WaitTimeout):
            return bot.wait(_WAKE_S)


class _Foreground:
    """A command of ours: what ends us ends it by the ladder, and a second time at once."""

    def __init__(self) -> None:
        self._bot: StartedBot | None = None
        self._orders = 0
        self._given = 0

    def follow(self, bot: StartedBot) -> None:
        """The command runs; what came before is obeyed now."""
        self._bot = bot
        self._obey()

    def heed(self, number: int, frame: FrameType | None) -> None:
        """A signal arrived."""
        del frame
        if number != signal.SIGINT:
            self._orders += 1
            self._obey()

    def _obey(self) -> None:
        while self._bot is not None and self._given < self._orders:
            self._given += 1
            self._bot.terminate(None if self._given == 1 else 0)
