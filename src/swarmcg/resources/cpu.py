"""``cpu`` of the OCI resources: the controllers cpu and cpuset."""

import math
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from swarmcg.bot import Row
from swarmcg.resources import cpulist, quantity
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.rows import impossible, nonsense, satisfied, written
from swarmcg.resources.spec import Cpu, LinuxResources

__all__ = ["Shares", "check_idle", "linear_weight", "plan", "quadratic_weight"]

Shares = Literal["quadratic", "linear"]

_PERIOD: Final = 100_000  # microseconds; the kernel's own default
_LOWEST_SHARES, _HIGHEST_SHARES, _HIGHEST_WEIGHT = 2, 262_144, 10_000
_LEAST_QUOTA, _LEAST_PERIOD, _MOST_PERIOD = 1000, 1000, 1_000_000  # microseconds
# MAX_BW of kernel/sched/core.c: what the scheduler can count, in microseconds.
_MOST_BANDWIDTH: Final = 2**44 - 1


def plan(resources: LinuxResources, abilities: Abilities, *, shares: Shares = "quadratic") -> Iterator[Row]:
    """The rows of ``cpu``; ``shares`` names the rule that turns shares into a weight."""
    cpu = resources.cpu or Cpu()
    yield from _weight(cpu, shares)
    yield from _bandwidth(cpu)
    yield from _burst(cpu)
    yield from _idle(cpu)
    yield from _set("cpu.cpus", "cpuset.cpus", cpu.cpus, abilities.cpus)
    yield from _set("cpu.mems", "cpuset.mems", cpu.mems, abilities.mems)
    yield from _realtime(cpu)


def quadratic_weight(shares: int) -> int:
    """The weight for v1 shares by the rule of runc >= 1.3.2 and crun >= 1.23: 1024 shares are 100."""
    if shares <= _LOWEST_SHARES:
        return 1
    if shares >= _HIGHEST_SHARES:
        return _HIGHEST_WEIGHT
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def linear_weight(shares: int) -> int:
    """The weight for v1 shares by the older rule, under which 1024 shares are 39."""
    within = min(max(shares, _LOWEST_SHARES), _HIGHEST_SHARES)
    return 1 + (within - _LOWEST_SHARES) * (_HIGHEST_WEIGHT - 1) // (_HIGHEST_SHARES - _LOWEST_SHARES)


def check_idle(rows: Iterable[Row]) -> None:
    """Raises ResourcesError when a weight is asked for beside cpu.idle=1, wherever they come from."""
    asked = {row.file: row for row in rows if row.value is not None}
    idle = asked.get("cpu.idle")
    if idle is None or quantity.number((idle.value or "").strip()) != 1:
        return
    for row in filter(None, map(asked.get, ("cpu.weight", "cpu.weight.nice"))):
        nonsense(
            row.field,
            row.value,
            "an idle cgroup has no weight: with cpu.idle=1 the kernel refuses every cpu.weight",
            f"Leave out {row.field} or {idle.field}.",
        )


def _weight(cpu: Cpu, rule: Shares) -> Iterator[Row]:
    if cpu.shares is None:
        return
    if cpu.shares == 0:
        yield satisfied("cpu.shares", "cpu.weight", "0 shares mean that none are asked for")
        return
    weight = {"quadratic": quadratic_weight, "linear": linear_weight}[rule](cpu.shares)
    yield written(
        "cpu.shares", "cpu.weight", weight, f"v1 shares of 2 to 262144 as a weight of 1 to 10000, {rule} rule"
    )


def _bandwidth(cpu: Cpu) -> Iterator[Row]:
    if cpu.quota is not None and 0 < cpu.quota < _LEAST_QUOTA:
        nonsense("cpu.quota", cpu.quota, "the kernel takes no quota below 1000 us", "Give at least 1000.")
    if cpu.quota is not None and cpu.quota > _MOST_BANDWIDTH:
        nonsense("cpu.quota", cpu.quota, "the scheduler cannot count that much", "Give -1 for no limit.")
    if cpu.period is not None and not _LEAST_PERIOD <= cpu.period <= _MOST_PERIOD:
        nonsense(
            "cpu.period",
            cpu.period,
            "the kernel takes a period of 1000 to 1000000 us",
            f"Give one in this range, or leave it out for {_PERIOD}.",
        )
    quota = "max" if cpu.quota is None or cpu.quota <= 0 else cpu.quota
    value = f"{quota} {_PERIOD if cpu.period is None else cpu.period}"
    why = "quota and period in one line, in microseconds; no quota or none above 0: max"
    if cpu.quota is not None:
        yield written("cpu.quota", "cpu.max", value, why)
    if cpu.period is not None:
        yield written("cpu.period", "cpu.max", value, why)


def _burst(cpu: Cpu) -> Iterator[Row]:
    if cpu.burst is None:
        return
    quota = cpu.quota or 0
    if quota > 0 and (cpu.burst > quota or cpu.burst + quota > _MOST_BANDWIDTH):
        nonsense("cpu.burst", cpu.burst, f"it exceeds the quota of {quota}", "Give at most the quota.")
    if cpu.burst > _MOST_BANDWIDTH:
        nonsense("cpu.burst", cpu.burst, "the scheduler cannot count that much", "Give at most the quota.")
    yield written("cpu.burst", "cpu.max.burst", cpu.burst, "in microseconds; after cpu.max, which bounds it")


def _idle(cpu: Cpu) -> Iterator[Row]:
    if cpu.idle is None:
        return
    if cpu.idle not in {0, 1}:
        nonsense("cpu.idle", cpu.idle, "it is 1 for an idle cgroup and 0 for any other", "Give 0 or 1.")
    yield written(
        "cpu.idle", "cpu.idle", cpu.idle, "as given; 1 runs only when nothing else wants the processor"
    )


def _set(field: str, file: str, asked: str | None, home: str | None) -> Iterator[Row]:
    if asked is None:
        return
    ranges = _parsed(field, asked)
    if home and not cpulist.is_within(ranges, cpulist.parse(home.strip())):
        nonsense(field, asked, f"the home may hand out {home.strip()} only", "Give a list within this one.")
    yield written(field, file, asked, "the list as given")


def _parsed(field: str, asked: str) -> cpulist.Ranges:
    remedy = "Give a list such as 0-3,7, or leave the field out."
    if not asked:
        nonsense(field, asked, "an empty list would lift the limit", remedy)
    try:
        return cpulist.parse(asked)
    except ValueError as e:
        nonsense(field, asked, str(e), remedy)


def _realtime(cpu: Cpu) -> Iterator[Row]:
    for field, value in (
        ("cpu.realtimeRuntime", cpu.realtime_runtime),
        ("cpu.realtimePeriod", cpu.realtime_period),
    ):
        if value == 0:
            yield satisfied(field, None, "0 asks for no real-time budget, and cgroup v2 gives none")
        elif value is not None:
            yield impossible(
                field,
                "cgroup v2 has no real-time budget",
                f"Leave {field} out; cpu.quota limits ordinary tasks.",
                value=value,
            )
