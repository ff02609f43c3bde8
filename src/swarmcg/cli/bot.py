"""``swarmcg bot``: one Swarming bot in a slice of its own, for as long as we stay in the foreground."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final, NoReturn

from swarmcg import bot_code
from swarmcg.bot import Config, StartedBot
from swarmcg.cli import detached, environment, flags, network, options, outcome, sizes
from swarmcg.cli.complaint import complain
from swarmcg.cli.orders import DRAIN, ending, say
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.cli.reported import reported
from swarmcg.cli.said import said
from swarmcg.cli.tables import table
from swarmcg.errors import ConfigError, StateError
from swarmcg.starter import Starter

if sys.platform == "linux":
    from swarmcg.cli.watch import Watch, unenforced
else:
    from swarmcg.cli.plain import Watch, unenforced

__all__ = ["FAILURE", "USAGE", "main"]

FAILURE: Final = outcome.OUR_FAILURE
USAGE: Final = 2

_EPILOG: Final = """\
The bot gets a session of its own, an environment from an allow-list, and DIR.log as its output.

signals to this process:
  SIGUSR1                    drain: the bot finishes its task and ends
  SIGTERM, SIGINT, SIGHUP    terminate: SIGTERM to every process in the slice, then, when the grace period is
                             over, the kill; a second one ends the grace period at once. One that swarmcg was
                             started with ignored, as by nohup or a script's &, stays ignored

With --detach the bot outlives this command: 'swarmcg clean --yes --detached BOT_ID' ends it.

exit status: the bot's own, 128+n after signal n, 125 when swarmcg fails, 2 when the call makes no sense.

example:
  swarmcg bot --swarming-url https://swarming.example.com --work-dir /b/s -m 4g --report report.json bot-17"""


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked = _parser().parse_args(words)
    config = _config(asked)
    to = reported(asked)
    for number in ending():
        signal.signal(number, _give_up)
    starter = Starter(asked.swarming_url, home=asked.home, enter_home=True, report_file=to.file)
    if asked.detach:
        detached.check_detach(asked.home)
        with starter:
            with said("swarmcg.bot_code", logging.INFO), flags.told_by_flag(asked, config.lenient):
                bot = starter.start(config, detach=True)
            detached.tell(bot)
        return 0
    with starter:
        with said("swarmcg.bot_code", logging.INFO), flags.told_by_flag(asked, config.lenient):
            bot = starter.start(config)
        watch = Watch(bot, config.grace_interval)
        say(_started(bot))
        if rows := unenforced(bot, config):
            say(f"not in force: {', '.join(row.field for row in rows)}")
        report = watch.until_end()
    try:
        to.tell(report)
    except StateError as e:
        complain(e)  # the bot's end is told all the same, as after any other trouble with its report
    say(f"ended {bot.bot_id}: {report.reason}")
    table(("EXIT REPORT", ""), outcome.lines(report), sys.stdout)
    return outcome.status(report)


def _started(bot: StartedBot) -> str:
    place = "without a slice" if bot.slice is None else f"slice {bot.slice}"
    how = "" if DRAIN is None else f"; kill -USR1 {os.getpid()} drains it"
    return f"started {bot.bot_id}: pid {bot.pid}, {place}{how}"


def _parser() -> Parser:
    parser = Parser("swarmcg bot", "Downloads a Swarming bot and runs it in a slice of its own.", _EPILOG)
    parser.add_argument("bot_id", metavar="BOT_ID", help="the bot's id, as the server knows it")
    parser.add_argument("--swarming-url", metavar="URL", required=True, help="the Swarming server")
    parser.add_argument(
        "--work-dir", metavar="DIR", required=True, help="the bot's own directory; it must exist"
    )
    parser.add_argument(
        "--python", metavar="PYTHON", default="python3", help="what runs it (default: %(default)s)"
    )
    options.add_environment(parser)
    options.add_policy(parser)
    options.add_home(parser)
    detached.add_detach(parser)
    flags.add_limits(parser)
    return parser


def _config(asked: argparse.Namespace) -> Config:
    wanted, lenient = flags.resources(asked, options.base_resources(asked))
    with _wrong_call():
        bot_code.check(asked.swarming_url, asked.bot_id)
        return Config(
            asked.bot_id,
            asked.work_dir,
            wanted,
            asked.python,
            grace_interval=sizes.grace("--grace", asked.grace),
            env=environment.added(asked.env, asked.env_file, environment.inherited()),
            on_unenforceable=asked.on_unenforceable,
            lenient=lenient,
            bandwidth=network.bandwidth(asked),
        )


@contextlib.contextmanager
def _wrong_call() -> Iterator[None]:
    """What the words of the call themselves have wrong is a UsageError, whoever finds it."""
    try:
        yield
    except UsageError:
        raise
    except ConfigError as e:
        raise UsageError(e.what, path=e.path, value=e.value, cause=e.cause, remedy=e.remedy) from None


def _give_up(number: int, frame: FrameType | None) -> NoReturn:
    """While the bot is being started: nothing is left of a start that is given up."""
    del frame
    sys.exit(128 + number)
