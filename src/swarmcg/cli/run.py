"""``swarmcg run``: a command in a slice of its own that otherwise behaves as if it had been called itself."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import Final

from swarmcg.bot import check_bot_id
from swarmcg.cli import detached, environment, flags, network, options, outcome, sizes
from swarmcg.cli.complaint import complain
from swarmcg.cli.orders import say
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.cli.reported import reported
from swarmcg.errors import StartError, StateError
from swarmcg.supervisor.launch import Launch

if sys.platform == "linux":
    from swarmcg.cli.foreground import run_command
else:
    from swarmcg.cli.plain import run_command

__all__ = ["FAILURE", "USAGE", "main"]

FAILURE: Final = outcome.OUR_FAILURE
USAGE: Final = outcome.OUR_FAILURE
_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127
_LONGEST_NAME: Final = 25  # characters, so that the id stays readable and short of its bound

_EPILOG: Final = """\
Terminal, standard streams, environment and directory are the command's, as if swarmcg were not there.
Ctrl-C is left to it. SIGTERM, SIGHUP, and a SIGINT that kill(2) sent (unless swarmcg was started with that ignored, as
a script's & does), end it: SIGTERM to every process in the
slice, then, when the grace period is over, the kill. A second signal ends the grace period at once.
What the command leaves behind when it ends is killed.

With --detach it has a session of its own and no input; what it says goes to the journal (journalctl -t ID). What
was started is printed, and 'swarmcg clean --yes --detached ID' ends it.

exit status: the command's own, 128+n after signal n, 125 when swarmcg fails, 126 when the command cannot be executed,
127 when it is not found. When swarmcg fails only after the command's end, the error says how that was.

examples:
  swarmcg run -m 512m --cpus 1.5 -- make -j8
  swarmcg run --pids-limit 200 --report report.json -- ./tests.sh
  swarmcg run --detach --id watcher -m 64m -- ./watch
  swarmcg run --resources config.json --grace 30s -- python3 worker.py
  swarmcg run --on-unenforceable=report -m 1g -- bash"""

_NAMELESS: Final = StartError(  # execvp(3) says ENOENT; Python's would try every directory in PATH
    "The command could not be started: its name is empty",
    step="exec",
    errno=errno.ENOENT,
    remedy="See how the first word after the flags came to be empty.",
)


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked, command = _split(words)
    if not command:
        raise UsageError(
            "No command was named",
            cause="nothing follows the flags" if words else "nothing follows 'swarmcg run'",
            remedy="swarmcg run [flags] -- COMMAND [ARGUMENT...]",
        )
    if not command[0]:
        return _not_started(_NAMELESS)
    to = reported(asked)
    launch = _launch(asked, command[0], to.file)
    ours = environment.inherited()
    env = ours | environment.added(asked.env, asked.env_file, ours)
    try:
        if asked.detach:
            detached.check_detach(asked.home)
            with flags.told_by_flag(asked, launch.lenient):
                bot = detached.start_detached(launch, command, env, cwd=asked.workdir)
            detached.tell(bot)
            return 0
        with flags.told_by_flag(asked, launch.lenient):
            report = run_command(launch, command, env, cwd=asked.workdir, home=asked.home)
    except StartError as e:
        if e.step != "exec":
            raise
        return _not_started(e)
    try:
        to.tell(report)
    except StateError as e:
        raise outcome.trouble_after(report, e) from e
    if (said := outcome.want_of_memory(report)) is not None:
        say(said)
    return outcome.status(report)


def _split(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and the command: all that follows the first ``--`` that no command stands before."""
    if "--" in words:
        end = list(words).index("--")
        asked = _parser().parse_args(words[:end])
        if not asked.command:
            return asked, list(words[end + 1 :])
    asked = _parser().parse_args(words)
    return asked, asked.command


def _parser() -> Parser:
    parser = Parser("swarmcg run", "Runs a command in a slice of its own.", _EPILOG)
    parser.usage = "swarmcg run [flags] [--] COMMAND [ARGUMENT...]"
    parser.add_argument(
        "--id", metavar="ID", help="how reports call it (default: the command's name and our pid)"
    )
    options.add_policy(parser)
    options.add_home(parser)
    detached.add_detach(parser)
    options.add_environment(parser)
    parser.add_argument("-w", "--workdir", metavar="DIR", help="directory to start in (default: this one)")
    flags.add_limits(parser)
    parser.rest("command", "COMMAND", "what to run")
    return parser


def _launch(asked: argparse.Namespace, program: str, report_file: str | None) -> Launch:
    wanted, lenient = flags.resources(asked, options.base_resources(asked))
    return Launch(
        bot_id=check_bot_id(_default_id(program) if asked.id is None else asked.id),
        resources=wanted,
        bandwidth=network.bandwidth(asked),
        on_unenforceable=asked.on_unenforceable,
        lenient=lenient,
        grace=sizes.grace("--grace", asked.grace),
        drain="sigterm",
        report_file=report_file,
        service=False,
    )


def _default_id(program: str) -> str:
    name = os.fsencode(os.path.basename(program)).decode(errors="replace")
    return f"{name[:_LONGEST_NAME]}-{os.getpid()}"


def _not_started(error: StartError) -> int:
    """Says why, with the exit status that env(1) and docker use for it."""
    complain(error)
    return _NOT_FOUND if error.errno == errno.ENOENT else _NOT_EXECUTABLE
