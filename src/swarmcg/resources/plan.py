"""What the resources mean on one host: the files to be written, in order, and what cannot be honoured."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from swarmcg.bot import Bandwidth, Row
from swarmcg.errors import UnenforceableError
from swarmcg.resources import blkio, cpu, devices, hugetlb, memory, network, pids, rdma, unified
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.device_rules import DeviceRules
from swarmcg.resources.network import NetworkPlan
from swarmcg.resources.obstacles import obstacle
from swarmcg.resources.spec import Cpu, LinuxResources, Memory

__all__ = ["WITHOUT_CHANGE", "WITHOUT_IT", "Plan", "Step", "plan", "unenforceable"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One write: ``value`` is never empty and has no line end; ``file`` is a name without a slash."""

    field: str
    file: str
    value: str
    why: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of every field.

    ``steps`` are the writes, in the order that the kernel accepts. ``rows`` has every field asked for.
    ``devices`` are the rules that a program is to put in force, None when nothing can or shall. ``network`` is
    what is to happen to packets, likewise.
    ``controllers`` are those that the steps need. ``lenient`` are fields that were not asked for in so many
    words: they are reported, never refused.
    """

    steps: tuple[Step, ...] = ()
    rows: tuple[Row, ...] = ()
    devices: DeviceRules | None = None
    network: NetworkPlan | None = None
    controllers: frozenset[str] = frozenset()
    lenient: frozenset[str] = frozenset()

    @property
    def unenforced(self) -> tuple[Row, ...]:
        """What was asked for and cannot be put in force here."""
        return tuple(row for row in self.rows if not row.enforceable)

    @property
    def refused(self) -> tuple[Row, ...]:
        """What of it forbids a start when the policy is to refuse."""
        return tuple(row for row in self.unenforced if row.field not in self.lenient)


def plan(
    resources: LinuxResources,
    abilities: Abilities,
    *,
    shares: cpu.Shares = "quadratic",
    lenient: frozenset[str] = frozenset(),
    bandwidth: Bandwidth | None = None,
    now: Mapping[str, str] | None = None,
) -> Plan:
    """The plan for a slice on a host with these abilities. Touches nothing, and gives the same for the same.

    ``shares`` names the rule that turns cpu.shares into a weight. ``lenient`` names fields, as in
    ``memory.swap``, whose rows are reported where they cannot be enforced, but never refused. ``bandwidth`` is
    what is asked of the network beyond OCI. ``now`` is what the files of a slice that runs already show, None
    for a new one: the half of a pair that is not asked for (quota or period; the limit that swap is told apart
    by) is then the one in force.

    Raises ResourcesError for what makes no sense on any host, or names what this host does not have. What
    makes sense and is not to be had here becomes a row that is not enforceable, with the cure.
    """
    asked = resources.checked()
    whole, added = (asked, frozenset()) if now is None else _completed(asked, now)
    every = _rows(whole, abilities, shares, bandwidth)
    wanted = tuple(_overridden(row for row in every if row.field not in added))
    cpu.check_idle(wanted)
    rows = tuple(_weighed(row, abilities) for row in wanted)
    steps = tuple(sorted(_steps(rows), key=lambda step: _RANK.get(step.file, 0)))
    return Plan(
        steps=steps,
        rows=rows,
        devices=devices.rules(asked.devices, rows),
        network=network.rules(asked.network, bandwidth, abilities, rows),
        controllers=frozenset(step.file.partition(".")[0] for step in steps) - {"cgroup"},
        lenient=lenient,
    )


# Each after the one that bounds it: the burst after its quota (Linux 5.14: EINVAL when it exceeds the quota
# in force), idle after weight (5.15: no weight can be written once a cgroup is idle), memory.max after
# memory.swap.max, so that what the lower limit pushes out finds its swap, and the kind of a cpuset after the
# set.
_RANK: Final = {"cpu.max.burst": 1, "cpu.idle": 1, "memory.max": 1, "cpuset.cpus.partition": 1}


def _rows(
    resources: LinuxResources, abilities: Abilities, shares: cpu.Shares, bandwidth: Bandwidth | None
) -> Iterator[Row]:
    yield from cpu.plan(resources, abilities, shares=shares)
    for controller in (memory, pids, blkio, hugetlb, rdma, devices):
        yield from controller.plan(resources, abilities)
    yield from network.plan(resources, abilities, bandwidth=bandwidth)
    yield from unified.plan(resources, abilities)


def _completed(asked: LinuxResources, now: Mapping[str, str]) -> tuple[LinuxResources, frozenset[str]]:
    """The resources with the other halves of pairs as they are in force, and the names of these."""
    added: dict[str, str] = {}
    cpu_, memory_ = asked.cpu or Cpu(), asked.memory or Memory()
    quota, _, period = now.get("cpu.max", "").partition(" ")
    if period and (cpu_.quota is None) != (cpu_.period is None):
        added |= {"quota": quota} if cpu_.quota is None else {"period": period}
    if memory_.swap and not memory_.limit and "memory.max" in now:
        added["limit"] = now["memory.max"]
    halves = {name: -1 if text == "max" else int(text) for name, text in added.items()}
    limit = {name: halves.pop(name) for name in ("limit",) if name in halves}
    whole = msgspec.structs.replace(
        asked,
        cpu=msgspec.structs.replace(cpu_, **halves) if halves else asked.cpu,
        memory=msgspec.structs.replace(memory_, **limit) if limit else asked.memory,
    )
    return whole, frozenset({f"cpu.{name}" for name in halves} | {f"memory.{name}" for name in limit})


def _overridden(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, of which those whose file ``unified`` names as well write nothing."""
    listed = tuple(rows)
    unified_files = {row.file for row in listed if _is_unified(row)}
    for row in listed:
        if row.file in unified_files and row.value is not None and not _is_unified(row):
            why = f"overridden by unified.{row.file}"
            yield msgspec.structs.replace(row, value=None, why=why, enforceable=True, remedy=None)
        else:
            yield row


def _is_unified(row: Row) -> bool:
    return row.field.startswith("unified.")


def _weighed(row: Row, abilities: Abilities) -> Row:
    lack = obstacle(row, abilities)
    if lack is None:
        return row
    why, remedy = lack.why, lack.remedy
    if not row.enforceable:  # what is in the way once the controller is there
        why, remedy = f"{why}; moreover, {row.why}", f"{remedy} Then: {row.remedy}"
    return msgspec.structs.replace(row, why=why, enforceable=False, remedy=remedy)


def _steps(rows: Iterable[Row]) -> Iterator[Step]:
    """One write a line; fields that share a line share the write."""
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if not row.enforceable or row.file is None or row.value is None:
            continue
        for line in filter(None, map(str.strip, row.value.split("\n"))):
            if (row.file, line) not in seen:
                seen.add((row.file, line))
                yield Step(field=row.field, file=row.file, value=line, why=row.why)


WITHOUT_IT: Final = (
    'To start without it: --on-unenforceable=report, in the library on_unenforceable="report".'
)
"""The end of every refusal to start."""
WITHOUT_CHANGE: Final = (
    'To change the rest alone: --on-unenforceable=report, in the library on_unenforceable="report".'
)
"""The end of every refusal to change what runs."""


def unenforceable(made: Plan, without: str = WITHOUT_IT) -> UnenforceableError:
    """Why a plan is refused, and how to go on ``without``; its value holds the rows."""
    first, *rest = made.refused
    more = f", and {len(rest)} more" if rest else ""
    return UnenforceableError(
        f"{first.field} cannot be enforced on this host{more}",
        path=first.file,
        value=[msgspec.to_builtins(row) for row in made.refused],
        cause="; ".join(f"{row.field}: {row.why}" for row in made.refused),
        remedy=f"{first.remedy or 'Leave it out.'} {without}",
    )
