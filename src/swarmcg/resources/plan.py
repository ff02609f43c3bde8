"""What the resources mean on one host: the files to be written, in order, and what cannot be honoured."""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from swarmcg.bot import Bandwidth, Row
from swarmcg.resources import blkio, cpu, devices, hugetlb, memory, network, pids, rdma, unified
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.devices import DeviceRules
from swarmcg.resources.network import NetworkPlan
from swarmcg.resources.obstacles import obstacle
from swarmcg.resources.spec import LinuxResources

__all__ = ["Plan", "Step", "plan"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One write: ``value`` is never empty and has no line end; ``file`` is a name without a slash."""

    field: str
    file: str
    value: str
    why: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of every field.

    ``steps`` are the writes, in the order that the kernel accepts. ``rows`` has every field asked for.
    ``devices`` is what is asked of these, enforced or not; None when nothing is. ``network`` is what is to
    happen to packets, None when nothing can or shall.
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
) -> Plan:
    """The plan for a new slice on a host with these abilities. Touches nothing, and gives the same for the
    same.

    ``shares`` names the rule that turns cpu.shares into a weight. ``lenient`` names fields, as in
    ``memory.swap``, whose rows are reported where they cannot be enforced, but never refused. ``bandwidth`` is
    what is asked of the network beyond OCI.

    Raises ResourcesError for what makes no sense on any host, or names what this host does not have. What
    makes sense and is not to be had here becomes a row that is not enforceable, with the cure.
    """
    asked = resources.checked()
    wanted = tuple(_overridden(_rows(asked, abilities, shares, bandwidth)))
    cpu.check_idle(wanted)
    rows = tuple(_weighed(row, abilities) for row in wanted)
    steps = tuple(sorted(_steps(rows), key=lambda step: _RANK.get(step.file, 0)))
    return Plan(
        steps=steps,
        rows=rows,
        devices=None if asked.devices is None else devices.complete(asked.devices),
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
    lack = obstacle(row, abilities) if row.enforceable else None
    if lack is None:
        return row
    return msgspec.structs.replace(row, why=lack.why, enforceable=False, remedy=lack.remedy)


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
