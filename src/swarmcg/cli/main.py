"""The entry point: finds the verb, and turns every error into a text and an exit status."""

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, Protocol

from swarmcg import __version__
from swarmcg.cli.complaint import complain
from swarmcg.cli.output import take_failure, watch_output
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.errors import SwarmcgError

__all__ = ["main"]

VERBS: Final = {
    "run": "run a command in a slice of its own, with docker's limit flags",
    "bot": "download a Swarming bot and run it in a slice of its own",
    "doctor": "say what this host can do, what is missing, and what mends it",
    "explain": "show what limits become on this host, and what cannot be enforced",
    "set": "change the limits of bots that run",
    "ps": "list the bots that run on this host",
    "clean": "list slices that nobody owns any more, and end them",
    "host": "start and stop what serves swarmcg-bots.service; for systemd",
}
_STOP: Final = (
    "To stop a detached bot: swarmcg clean --yes --detached BOT_ID; another: SIGTERM to its swarmcg."
)
_START: Final = (
    "To start a command: swarmcg run; a Swarming bot: swarmcg bot; --detach lets either outlive the call."
)
_MEANT: Final = {
    "stop": _STOP,
    "kill": _STOP,
    "start": _START,
    "restart": f"{_STOP} Then start it anew, with swarmcg run or swarmcg bot.",
    "logs": "What swarmcg says of a bot: journalctl SWARMCG_BOT=BOT_ID; what it says if detached: journalctl -t BOT_ID",
    **dict.fromkeys(("status", "list", "ls"), "To see the bots that run: swarmcg ps"),
    **dict.fromkeys(
        ("stats", "top"),
        "To see what bots use of memory and tasks: swarmcg ps; when they end: the exit report",
    ),
    "help": "'swarmcg --help' tells what there is, 'swarmcg VERB --help' more about each.",
    "update": "To change the limits of a bot that runs: swarmcg set",
}
"""Verbs of other programs, and what they are called here."""
_BROKEN_PIPE: Final = 128 + 13  # as a shell shows SIGPIPE, which some platforms lack
_ON_LINUX: Final[bool] = sys.platform == "linux"  # verbs that need it say so when they are imported
_EXAMPLES: Final = """\
examples:
  swarmcg run -m 512m --cpus 1.5 -- make -j8
  swarmcg bot --swarming-url https://swarming.example.com --work-dir /b/s bot-17
  swarmcg explain --json --resources config.json
  swarmcg doctor
  swarmcg set -m 2g bot-17
  swarmcg ps
  swarmcg clean --yes

'swarmcg VERB --help' tells more about each."""


class Verb(Protocol):
    """What every verb's module has."""

    FAILURE: int
    """The exit status when we fail."""
    USAGE: int
    """The exit status when we were called wrongly."""

    def main(self, words: Sequence[str]) -> int:
        """Does it; the words are those after the verb. Returns the exit status."""
        ...


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status. Whatever a user can cause ends here without a
    traceback.
    """
    asked = sys.argv[1:] if words is None else list(words)
    watch_output()
    try:
        status, unwritten = _finished(asked)
    except BrokenPipeError:
        _abandon_output()
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status if unwritten is None else _fail(unwritten, status or 1)


def _finished(words: list[str]) -> tuple[int, SwarmcgError | None]:
    """The exit status, and why not all that was said could be written."""
    try:
        return _run(words), _unwritten()
    except SystemExit:  # help and version
        unwritten = _unwritten()
        if unwritten is None:
            raise
        return 1, unwritten


def _run(words: list[str]) -> int:
    try:
        verb, rest = _verb(words)
    except UsageError as e:
        return _fail(e, 2)
    try:
        module: Verb = importlib.import_module(f"swarmcg.cli.{verb}")
    except ImportError as e:
        if _ON_LINUX:
            raise
        return _fail(_elsewhere(verb, e), 2)
    return _call(module, rest)


def _call(module: Verb, words: list[str]) -> int:
    try:
        return module.main(words)
    except UsageError as e:
        return _fail(e, module.USAGE)
    except SwarmcgError as e:
        return _fail(e, module.FAILURE)
    except BrokenPipeError:
        raise
    except OSError as e:
        return _fail(_unwritten() or _refused(e), module.FAILURE)


def _verb(words: list[str]) -> tuple[str, list[str]]:
    listed = "\n".join(f"  {name:8} {summary}" for name, summary in VERBS.items())
    parser = Parser(
        "swarmcg",
        "Starts commands and bots in cgroup v2 slices of their own.",
        f"verbs:\n{listed}\n\n{_EXAMPLES}",
    )
    parser.add_argument("--version", action="version", version=f"swarmcg {__version__}")
    parser.add_argument("verb", metavar="VERB", nargs="?", help="what to do; see below")
    parser.rest("rest", "ARGUMENT")
    asked = parser.parse_args(words)
    if asked.verb is None:
        parser.print_help(sys.stderr)
        sys.exit(2)
    if asked.verb not in VERBS:
        raise UsageError(
            f"There is no verb {asked.verb!r}",
            cause=f"the verbs are {', '.join(VERBS)}",
            remedy=_MEANT.get(asked.verb, "'swarmcg --help' tells what each of them does."),
        )
    return asked.verb, asked.rest


def _elsewhere(verb: str, e: ImportError) -> SwarmcgError:
    return SwarmcgError(
        f"'swarmcg {verb}' does not work on {sys.platform}", cause=str(e), remedy="Run it on a Linux host."
    )


def _refused(e: OSError) -> SwarmcgError:
    return SwarmcgError(
        "The operating system refused",
        path=os.fsdecode(e.filename) if isinstance(e.filename, str | bytes) else None,
        errno=e.errno,
        cause=None if e.errno else str(e),
    )


def _fail(error: SwarmcgError, status: int) -> int:
    complain(error)
    return status


def _unwritten() -> SwarmcgError | None:
    """Why standard output does not take in what was said; told once. None where that is not so."""
    failure = take_failure()
    if failure is None:
        return None
    _abandon_output()
    return SwarmcgError(
        "Standard output cannot be written",
        errno=failure.errno,
        remedy="Free space where it goes, or write somewhere else. What was asked for was done as far as told.",
    )


def _abandon_output() -> None:
    """Keeps the interpreter from writing to the broken pipe once more while it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(null, sys.stdout.fileno())
    os.close(null)
