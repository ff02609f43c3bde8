"""``swarmcg explain``: the plan that ``run`` would carry out on this host, and nothing of it carried out."""

import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from swarmcg.bot import Row
from swarmcg.cli import flags, network, options
from swarmcg.cli.parser import Parser
from swarmcg.cli.tables import printable, table
from swarmcg.errors import HomeError
from swarmcg.resources import Abilities, Lack, Networking, limits_packets, plan

__all__ = ["FAILURE", "USAGE", "main"]

FAILURE: Final = 2
USAGE: Final = 2

_EPILOG: Final = """\
Changes nothing, and needs neither root nor a cgroup: what cannot be enforced says why, and what would help.
Weights count among the slices of one home only.

exit status: 0 when the limits make sense, enforceable or not; 2 when they do not.

examples:
  swarmcg explain -m 1g --cpus 2 --pids-limit 500
  swarmcg explain --json --resources config.json
  echo '{"memory": {"limit": 1048576}}' | swarmcg explain --resources -"""


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked = _parser().parse_args(words)
    wanted, lenient = flags.resources(asked, options.base_resources(asked))
    bandwidth = network.bandwidth(asked)
    abilities = _abilities(asked.home, packets=limits_packets(wanted, bandwidth))
    made = plan(wanted, abilities, lenient=lenient, bandwidth=bandwidth)
    if asked.json:
        print(msgspec.json.format(msgspec.json.encode(made.rows), indent=2).decode())
    else:
        _print(made.rows)
    return 0


def _parser() -> Parser:
    parser = Parser("swarmcg explain", "Shows what limits become on this host.", _EPILOG)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    options.add_home(parser)
    flags.add_limits(parser)
    return parser


def _abilities(home: str | None, *, packets: bool) -> Abilities:
    """What slices can be given here; where there is no place for slices, nothing, for that reason."""
    if sys.platform != "linux":
        return _none("this is no Linux host", "Run it on a Linux host with cgroup v2.")
    from swarmcg.cgroup.home import find_home  # noqa: PLC0415  Linux only

    try:
        found = find_home(home, starts=False).abilities()
    except HomeError as e:
        return _none(f"{e.headline[:1].lower()}{e.headline[1:]}: {e.reason}", e.remedy or "")
    if not packets:
        return found
    from swarmcg.cgroup.network import probe  # noqa: PLC0415  Linux only

    return msgspec.structs.replace(found, network=probe())


def _none(why: str, remedy: str) -> Abilities:
    lack = Lack(why=why, remedy=remedy)
    return Abilities(mode="none", lacking=dict.fromkeys(_CONTROLLERS, lack), network=Networking(lack=lack))


_CONTROLLERS: Final = ("cgroup", "cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma")


def _print(rows: Sequence[Row]) -> None:
    if not rows:
        print("Nothing is asked for: a slice without limits.")
        return
    table(("FIELD", "FILE", "VALUE", "ENFORCEABLE", "WHY"), map(_cells, rows), sys.stdout)
    for remedy in dict.fromkeys(row.remedy for row in rows if row.remedy):
        fields = ", ".join(row.field for row in rows if row.remedy == remedy)
        print(printable(f"{fields}: {remedy}"))


def _cells(row: Row) -> tuple[str, ...]:
    value = "; ".join((row.value or "-").split("\n"))
    return row.field, row.file or "-", value, "yes" if row.enforceable else "no", row.why
