"""``swarmcg set``: changes the limits of bots that run, whoever started them."""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from swarmcg.cgroup.limits import find
from swarmcg.cgroup.update import update
from swarmcg.cli import flags, options
from swarmcg.cli.complaint import complain
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.cli.said import said
from swarmcg.errors import ConfigError
from swarmcg.resources import LinuxResources
from swarmcg.supervisor.unit import inhabited

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["FAILURE", "USAGE", "main"]

FAILURE: Final = 1
USAGE: Final = 2

_EPILOG: Final = """\
BOT_ID is the id of a bot that runs, or the incarnation of one life of it. Only what is named changes: -m leaves
swap alone, --cpu-quota the period. -1 or max removes a limit. With several bots, all of them are changed or
none. When a value is refused, everything that was written before is put back. Frozen bots stay frozen. --device and
--device-cgroup-rule together replace all device rules that a bot has: name every device that it may go on using.

exit status: 0 when all that can be enforced is in force (with --on-unenforceable=report the rest is told on standard
error); 1 when nothing was changed because the host or the kernel refused it; 2 when the call makes no sense, or no
such bot runs.

examples:
  swarmcg set -m 2g --memory-swap 3g bot-17
  swarmcg set --cpus 0.5 bot-17 bot-18 bot-19
  swarmcg set --resources limits.toml 9f86d081884c7d65
  swarmcg explain --against bot-17 -m 2g"""


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked = _parser().parse_args(words)
    try:
        wanted = _wanted(asked)
        homes = inhabited(asked.home)
        paths = [find(homes, bot_id).path for bot_id in asked.bots]
        with said("swarmcg", logging.WARNING), flags.told_by_flag(asked):
            update(paths, wanted, policy=asked.on_unenforceable)
    except ConfigError as e:  # a bot that is not there, a value that makes no sense
        complain(e)
        return USAGE
    return 0


def _wanted(asked: argparse.Namespace) -> LinuxResources:
    wanted = flags.changes(asked, options.base_resources(asked))
    if not msgspec.to_builtins(wanted):
        raise UsageError(
            "Nothing is to be changed",
            cause="neither a flag nor --resources names a limit; 0 means, as in docker, that none is asked for",
            remedy="Name a limit, as in -m 2g, or -1 to remove one.",
        )
    return wanted


def _parser() -> Parser:
    parser = Parser("swarmcg set", "Changes the limits of bots that run.", _EPILOG)
    parser.usage = "swarmcg set [flags] BOT_ID..."
    parser.add_argument("bots", metavar="BOT_ID", nargs="+", help="a bot's id, or an incarnation")
    options.add_unenforceable(parser, "what to do when a limit cannot be enforced: fail (default), or go on")
    options.add_home(parser)
    flags.add_limits(parser)
    return parser
