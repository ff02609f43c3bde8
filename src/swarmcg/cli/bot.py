"""``swarmcg bot``: one Swarming bot in a slice of its own, for as long as we stay in the foreground."""

import argparse
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

from swarmcg.bot import Config, ExitReport
from swarmcg.cli import flags, network, options, outcome, sizes
from swarmcg.cli.parser import Parser
from swarmcg.cli.signalfd import Signals
from swarmcg.cli.tables import printable, table
from swarmcg.starter import Starter
from swarmcg.supervisor.client import SupervisedBot

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["FAILURE", "USAGE", "main"]

FAILURE: Final = outcome.OUR_FAILURE
USAGE: Final = 2

_EPILOG: Final = """\
The bot gets a session of its own, an environment from an allow-list, and DIR.log as its output.

signals to this process:
  SIGUSR1                    drain: the bot finishes its task and ends
  SIGTERM, SIGINT, SIGHUP    terminate: SIGTERM to every process in the slice, then, when the grace period is
                             over, the kill; a second one ends the grace period at once

exit status: the bot's own, 128+n after signal n, 125 when we fail, 2 when we were called wrongly.

example:
  swarmcg bot --swarming-url https://swarming.example.com --work-dir /b/s -m 4g --report report.json bot-17"""

_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked = _parser().parse_args(words)
    config = _config(asked)
    report_file = options.report_file(asked)
    for number in _ENDING:
        signal.signal(number, _give_up)
    starter = Starter(asked.swarming_url, home=asked.home, enter_home=True, report_file=report_file)
    with starter:
        bot = starter.start(config)
        watch = Watch(bot)
        _say(f"started {bot.bot_id}: pid {bot.pid}, slice {bot.slice}; kill -USR1 {os.getpid()} drains it")
        report = watch.until_end()
    _say(f"ended {bot.bot_id}: {report.reason}")
    table(("EXIT REPORT", ""), outcome.lines(report), sys.stdout)
    return outcome.status(report)


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
    options.add_policy(parser)
    options.add_home(parser)
    flags.add_limits(parser)
    return parser


def _config(asked: argparse.Namespace) -> Config:
    wanted, lenient = flags.resources(asked, options.base_resources(asked))
    return Config(
        asked.bot_id,
        asked.work_dir,
        wanted,
        asked.python,
        grace_interval=sizes.grace("--grace", asked.grace),
        on_unenforceable=asked.on_unenforceable,
        lenient=lenient,
        bandwidth=network.bandwidth(asked),
    )


def _give_up(number: int, frame: FrameType | None) -> NoReturn:
    """While the bot is being started: nothing is left of a start that is given up."""
    del frame
    sys.exit(128 + number)


class Watch:
    """Waits for a bot and for signals at once: a thread waits for the bot, this one for both.

    From its making on, signals are orders about the bot.
    """

    def __init__(self, bot: SupervisedBot) -> None:
        self._signals: Final = Signals([*_ENDING, signal.SIGUSR1])
        self._bot: Final = bot
        self._outcome: ExitReport | BaseException | None = None
        self._stopping = False

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
                self._heed(arrival.number)
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

    def _heed(self, number: int) -> None:
        if number == signal.SIGUSR1:
            _say("draining")
            self._bot.drain()
        elif self._stopping:
            _say("terminating: the grace period is cut short")
            self._bot.terminate(0)
        else:
            _say("terminating")
            self._stopping = True
            self._bot.terminate()


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(f"swarmcg: {printable(text)}", file=sys.stderr, flush=True)
