"""``swarmcg host``: starts and stops what serves the bots unit; systemd calls it, from swarmcg-bots.service."""

import contextlib
import os
import select
import sys
import time
from collections.abc import Sequence
from typing import Final

from swarmcg.cgroup.files import cgroup_errors, read_text, write_line
from swarmcg.cgroup.find import find_home
from swarmcg.cgroup.hierarchy import look
from swarmcg.cli import sizes
from swarmcg.cli.complaint import complain
from swarmcg.cli.parser import Parser
from swarmcg.errors import HomeError, StuckError
from swarmcg.ladder import FREEZE_S, KILL_S
from swarmcg.supervisor.unit import Unit, answer, connect, find_unit, put_host, unit_at

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["FAILURE", "USAGE", "main", "stop_within"]

FAILURE: Final = 1
USAGE: Final = 2
_CONTROL: Final = "/.control"
"""Where systemd runs ExecReload= and ExecStop= of a delegated unit."""
_GRACE: Final = "180s"
_ENDS_S: Final = 10.0
_BY_SYSTEMD: Final = "systemctl start swarmcg-bots, or name a cgroup with --home."
_HEIRS: Final = 3
"""As many as the keeper starts for one that is killed again and again."""

_EPILOG: Final = """\
start puts the keeper of bots and the process that commands it into the unit, and takes over bots that an earlier one
left; harmless where both are. stop ends every bot of the unit by the stop ladder (SIGTERM to every process,
the grace period, then the kill), then both processes.

exit status: 0; 1 when swarmcg fails, or when processes are left that cannot be killed; 2 when the call makes no
sense.

examples:
  systemctl start swarmcg-bots
  swarmcg host --grace 10s stop"""


def stop_within(grace: float) -> float:
    """How long a stop with these grace periods takes at most, in seconds: what TimeoutStopSec= must allow."""
    return grace + FREEZE_S + 3 * KILL_S + _ENDS_S


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked = _parser().parse_args(words)
    if asked.do == "start":
        _start(asked.home)
        return 0
    return _stop(sizes.grace("--grace", asked.grace))


def _parser() -> Parser:
    parser = Parser("swarmcg host", "Starts and stops what serves the bots unit.", _EPILOG)
    parser.add_argument("do", choices=("start", "stop"), help="what to do")
    parser.add_argument(
        "--home", metavar="DIR", help="the cgroup that is the unit's own (default: the one we are in)"
    )
    parser.add_argument(
        "--grace",
        metavar="TIME",
        default=_GRACE,
        help="the longest grace period of a stop (default: %(default)s)",
    )
    return parser


def _start(home: str | None) -> None:
    # A directory that is no cgroup would hold nothing, and everything written there would succeed.
    unit = unit_at(find_home(home, starts=False).path if home is not None else _own())
    other = find_unit()
    if other is not None and other.directory != unit.directory and other.served():
        raise HomeError(
            "Another bots unit is served already",
            path=other.directory,
            cause="there is one for each user",
            remedy="Stop it first, or name another runtime directory with SWARMCG_RUNTIME_DIR.",
        )
    if home is None:
        _enter(unit)
    put_host(unit)


def _own() -> str:
    """The unit that systemd started us in."""
    own = look().own
    if own is None or not own.removesuffix(_CONTROL).endswith(".service"):
        raise HomeError(
            "This process is not in a unit that could be served",
            path=own,
            cause="the bots unit's cgroup is where its ExecStart= runs",
            remedy=_BY_SYSTEMD if look().systemd else "systemd does not run here: name a cgroup with --home.",
        )
    return own.removesuffix(_CONTROL)


def _enter(unit: Unit) -> None:
    """Goes out of the way: a cgroup that holds processes cannot hand controllers down."""
    if str(os.getpid()) not in read_text(f"{unit.directory}/cgroup.procs").split():
        return
    with cgroup_errors("The unit's leaf cannot be made", unit.leaf):
        unit.make_leaf()
        write_line(f"{unit.leaf}/cgroup.procs", "0")


def _stop(grace: float) -> int:
    unit = find_unit()
    if unit is None:
        return 0
    left = _left_by_stop(unit, grace)
    _wait_empty(unit)
    if left:
        complain(
            StuckError(
                "Slices are left in the bots unit",
                value=" ".join(left),
                cause="their processes wait in the kernel (state D)",
                remedy="See what they wait for: a dead disk, network mount or device.",
            )
        )
    return int(bool(left))


def _left_by_stop(unit: Unit, grace: float) -> list[str]:
    """Has it stopped, and says which slices are left. When the process that does it is killed, its heir goes on, which
    knows nothing of the stop: it is told anew, with what is left of the grace periods.
    """
    begun = time.monotonic()
    for last in (False,) * _HEIRS + (True,):
        gone = time.monotonic() - begun
        with contextlib.closing(connect(unit)) as wire:
            try:
                wire.send({"do": "stop", "grace": max(0.0, grace - gone)})
                left: list[str] = answer(wire, max(0.0, stop_within(grace) - gone))["left"]
            except (HomeError, OSError) as e:
                if last or (isinstance(e, HomeError) and not wire.ended):
                    raise
            else:
                return left
        if find_unit() is None:
            break  # it had stopped, and could tell nobody any more
    return unit.home.slices()


def _wait_empty(unit: Unit) -> None:
    """Waits until the unit's own processes have ended, and removes their leaf."""
    with (
        contextlib.suppress(FileNotFoundError),
        open(f"{unit.leaf}/cgroup.events", "rb", buffering=0) as events,
    ):
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        end = time.monotonic() + _ENDS_S
        while b"populated 1" in os.pread(events.fileno(), 4096, 0) and (left := end - time.monotonic()) > 0:
            poll.poll(left * 1000)
    with contextlib.suppress(OSError):
        os.rmdir(unit.leaf)
