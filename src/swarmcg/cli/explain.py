"""``swarmcg explain``: the plan that ``run`` or ``set`` would carry out on this host, and nothing of it
carried out.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from swarmcg.bot import Row
from swarmcg.cli import flags, network, options
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.cli.tables import printable, table
from swarmcg.errors import HomeError
from swarmcg.resources import Abilities, DeviceControl, Lack, Networking, entry, limits_packets, plan

__all__ = ["FAILURE", "USAGE", "main"]

FAILURE: Final = 2
USAGE: Final = 2

_EPILOG: Final = """\
Changes nothing, and needs neither root nor a cgroup: what cannot be enforced says why, and what would help.
Weights count among the slices of one home only. With --against the plan is that of 'swarmcg set' for a bot that
runs: what its files show now, and what they would show then.

exit status: 0 when the limits make sense, enforceable or not; 2 when they do not.

examples:
  swarmcg explain -m 1g --cpus 2 --pids-limit 500
  swarmcg explain --json --resources config.json
  swarmcg explain --against bot-17 --memory-swap 2g
  echo '{"memory": {"limit": 1048576}}' | swarmcg explain --resources -"""


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked = _parser().parse_args(words)
    if asked.against is not None:
        _compare(asked)
        return 0
    wanted, lenient = flags.resources(asked, options.base_resources(asked))
    bandwidth = network.bandwidth(asked)
    abilities = _abilities(asked.home, packets=limits_packets(wanted, bandwidth))
    with flags.told_by_flag(asked, lenient):
        made = plan(wanted, abilities, lenient=lenient, bandwidth=bandwidth)
    if asked.json:
        _print_json(made.rows)
    else:
        _print(made.rows)
    return 0


def _parser() -> Parser:
    parser = Parser("swarmcg explain", "Shows what limits become on this host.", _EPILOG)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    parser.add_argument(
        "--against", metavar="BOT_ID", help="what would change for this bot, named by id or incarnation"
    )
    options.add_home(parser)
    flags.add_limits(parser)
    return parser


def _abilities(home: str | None, *, packets: bool) -> Abilities:
    """What slices can be given here; where there is no place for slices, nothing, for that reason."""
    if sys.platform != "linux":
        return _none("this is no Linux host", "Run it on a Linux host with cgroup v2.")
    from swarmcg.cgroup.find import find_home  # noqa: PLC0415  Linux only
    from swarmcg.cgroup.hierarchy import CONTROLLERS, look  # noqa: PLC0415  the same

    seen = look()
    try:
        found = find_home(home, starts=False, hierarchy=lambda: seen).abilities()
    except HomeError as e:
        nothing = _none(f"{e.headline[:1].lower()}{e.headline[1:]}: {e.reason}", e.remedy or "")
        # Beside version 1 no controller is to be had in any home, whatever would bring one.
        held = {name: seen.lack(name) for name in CONTROLLERS} if seen.v1 else {}
        return msgspec.structs.replace(nothing, lacking={**nothing.lacking, **held})
    if not packets:
        return found
    from swarmcg.cgroup.network import probe  # noqa: PLC0415  Linux only

    return msgspec.structs.replace(found, network=probe())


def _none(why: str, remedy: str) -> Abilities:
    lack = Lack(why=why, remedy=remedy)
    return Abilities(
        mode="none",
        lacking=dict.fromkeys(_CONTROLLERS, lack),
        devices=DeviceControl(lack=lack),
        network=Networking(lack=lack),
    )


_CONTROLLERS: Final = ("cgroup", "cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "pids", "rdma")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What an update would do to one field: what its file shows now, or its device's line there, and then."""

    field: str
    file: str | None
    now: str | None
    then: str | None
    why: str
    enforceable: bool
    remedy: str | None


def _compare(asked: argparse.Namespace) -> None:
    if sys.platform != "linux":
        raise UsageError("--against needs Linux", cause="bots run in cgroups", remedy="Run it on their host.")
    from swarmcg.cgroup.limits import find  # noqa: PLC0415  Linux only
    from swarmcg.cgroup.update import preview  # noqa: PLC0415  the same
    from swarmcg.supervisor.unit import inhabited  # noqa: PLC0415  the same

    wanted = flags.changes(asked, options.base_resources(asked))
    with flags.told_by_flag(asked):
        made, now = preview(find(inhabited(asked.home), asked.against).path, wanted)
    differences = [_difference(row, now) for row in made.rows]
    if asked.json:
        _print_json(differences)
    elif differences:
        _tell(("FIELD", "FILE", "NOW", "THEN"), map(_compared_cells, differences), made.rows)
    else:
        print("Nothing is asked for: nothing would change.")


def _difference(row: Row, now: Mapping[str, str]) -> Difference:
    shown = now.get(row.field) if row.file is None else _now(row.file, row.value, now)
    return Difference(
        field=row.field,
        file=row.file,
        now=shown,
        then=row.value if row.enforceable and row.value is not None else shown,
        why=row.why,
        enforceable=row.enforceable,
        remedy=row.remedy,
    )


def _now(file: str, value: str | None, now: Mapping[str, str]) -> str | None:
    """What the file shows of that which the value's lines would take the place of."""
    if value is None or file not in now:
        return now.get(file)
    return "\n".join(entry(file, line, now[file]) for line in map(str.strip, value.split("\n")) if line)


def _compared_cells(found: Difference) -> tuple[str, ...]:
    return found.field, found.file or "-", _line(found.now), _line(found.then)


def _print_json(rows: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())


def _print(rows: Sequence[Row]) -> None:
    if not rows:
        print("Nothing is asked for: a slice without limits.")
        return
    _tell(("FIELD", "FILE", "VALUE"), map(_cells, rows), rows)


def _tell(head: Sequence[str], cells: Iterable[Sequence[str]], rows: Sequence[Row]) -> None:
    """A row for each; what would help below them at a terminal, else as a column."""
    people = sys.stdout is not None and sys.stdout.isatty()
    tail = ("ENFORCEABLE", "WHY") if people else ("ENFORCEABLE", "WHY", "REMEDY")
    table(
        (*head, *tail),
        ((*cell, *_state(row, people=people)) for cell, row in zip(cells, rows, strict=True)),
        sys.stdout,
    )
    if people:
        _print_remedies(rows)


def _state(row: Row, *, people: bool) -> tuple[str, ...]:
    state = ("yes" if row.enforceable else "no", row.why)
    return state if people else (*state, row.remedy or "")


def _print_remedies(rows: Sequence[Row]) -> None:
    for remedy in dict.fromkeys(row.remedy for row in rows if row.remedy):
        fields = ", ".join(row.field for row in rows if row.remedy == remedy)
        print(printable(f"{fields}: {remedy}"))


def _cells(row: Row) -> tuple[str, ...]:
    return row.field, row.file or "-", _line(row.value)


def _line(value: str | None) -> str:
    return "; ".join((value or "-").split("\n"))
