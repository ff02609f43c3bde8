"""Bots and commands that outlive the command line: what was started is told, and nothing waits for it."""

import sys
from collections.abc import Mapping, Sequence

from swarmcg.bot import StartedBot
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.cli.tables import table
from swarmcg.errors import HomeError
from swarmcg.supervisor.launch import Launch

if sys.platform == "linux":
    from swarmcg.supervisor.detached import start_detached
else:

    def start_detached(
        launch: Launch, argv: Sequence[str], env: Mapping[str, str], *, cwd: str | None
    ) -> StartedBot:
        """Nothing can be detached here."""
        del argv, env, cwd
        raise HomeError(
            f"{launch.bot_id!r} cannot be detached on this platform",
            cause="the process that would keep it needs Linux",
            remedy="Run it in the foreground.",
        )


__all__ = ["add_detach", "check_detach", "start_detached", "tell"]


def add_detach(parser: Parser) -> None:
    """The flag."""
    parser.add_argument(
        "-d",
        "--detach",
        action="store_true",
        help="start it in the bots unit (swarmcg-bots.service), and return",
    )


def check_detach(home: str | None, flag: str = "--detach") -> None:
    """Raises UsageError where a home was named as well."""
    if home is not None:
        raise UsageError(
            f"{flag} and --home exclude each other",
            cause="what is detached lives in the bots unit",
            remedy="Leave one of them out.",
        )


def tell(bot: StartedBot) -> None:
    """Prints what was started."""
    table(("ID", "PID", "SLICE"), [(bot.bot_id, str(bot.pid), bot.slice or "-")], sys.stdout)
