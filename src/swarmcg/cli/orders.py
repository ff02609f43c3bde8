"""What signals to ``swarmcg bot`` mean for its bot."""

import signal
import sys
from typing import Final

from swarmcg.bot import StartedBot
from swarmcg.cli.tables import printable

__all__ = ["DRAIN", "Orders", "ending", "say"]

_ENDING: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
DRAIN: Final[int | None] = getattr(signal, "SIGUSR1", None)  # Windows has none


def ending() -> tuple[int, ...]:
    """The signals that are orders to end: not those that our caller ignored, as nohup does and a script's ``&``.
    What is ignored stays so.
    """
    return tuple(number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN)


class Orders:
    """Carries them out: one drains, the others terminate, and again they end the grace period."""

    def __init__(self, bot: StartedBot, grace: float) -> None:
        self._bot: Final = bot
        self._grace: Final = grace
        self._stopping = False

    def heed(self, number: int) -> None:
        """A signal arrived."""
        if number == DRAIN:
            say("draining")
            self._bot.drain()
        elif self._stopping:
            say("terminating: the grace period is cut short")
            self._bot.terminate(0)
        else:
            say(f"terminating: at most {self._grace:g} s; a second signal kills at once")
            self._stopping = True
            self._bot.terminate()


def say(text: str) -> None:
    """Tells the operator, on standard error."""
    if sys.stderr is not None:
        print(f"swarmcg: {printable(text)}", file=sys.stderr, flush=True)
