"""What an update of a running slice does: from what its files show and what is asked to writes in an order that
the kernel takes, each with its way back. Pure.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from swarmcg.resources import quantity
from swarmcg.resources.plan import Plan, Step
from swarmcg.resources.readback import settled, unit
from swarmcg.resources.rows import nonsense
from swarmcg.resources.spec import LinuxResources

__all__ = ["Change", "Line", "changes", "check", "companions", "entry"]

_COMPANIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu": ("cpu.max", "cpu.max.burst", "cpu.idle", "cpu.weight"),
    "memory": ("memory.max",),
}

_KEYED: Final[Mapping[str, str]] = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "io.latency": "target=0",
    "rdma.max": "hca_handle=max hca_object=max",
    "io.weight": "default",
    "io.bfq.weight": "default",
    "misc.max": "max",
    "dmem.max": "max",
    "dmem.low": "0",
    "dmem.min": "0",
}
"""Files with a line for each device or resource, and what such a line is when the file does not show it."""

_CPUSETS: Final = frozenset({"cpuset.cpus", "cpuset.mems", "cpuset.cpus.exclusive"})
_EMPTY: Final = "\n"
"""Empties a cpuset, which then has what its parent has; write(2) of no byte at all would do nothing."""


class Line(NamedTuple):
    """One write of one line."""

    file: str
    text: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One write to a running slice.

    ``now`` is what the file shows before it, or the entry for the same device where the file has one line a
    device; ``undo`` are the writes that bring that back, in order.
    """

    field: str
    file: str
    value: str
    now: str
    undo: tuple[Line, ...]


def companions(asked: LinuxResources) -> tuple[str, ...]:
    """Files that an update must know although it need not name them: the other halves of pairs, what bounds them."""
    named = {file.partition(".")[0] for file in asked.unified or ()}
    named |= {name for name in _COMPANIONS if getattr(asked, name) is not None}
    found = tuple(file for name, files in _COMPANIONS.items() if name in named for file in files)
    checked = asked.memory is not None and asked.memory.check_before_update
    return (*found, "memory.current") if checked else found


def changes(
    made: Plan, now: Mapping[str, str], *, weight: str | None = None, page_size: int = 4096
) -> tuple[Change, ...]:
    """The writes by which files that show ``now`` come to hold the plan's values, in a safe order.

    What is raised comes first, from the outermost bound (swap before memory, quota before burst), what is
    lowered afterwards and the other way round, so that no state in between is refused by the kernel, or
    kills. In reverse order the undo lines are as safe. Files that hold their values already are left alone.

    ``now`` has every file of the plan, and the :func:`companions` that exist. ``weight`` is the cpu.weight that a
    slice is to have that stops being idle: the kernel has forgotten it.
    """
    unsettled = {
        step.file
        for step in made.steps
        if not settled(step.file, step.value, now[step.file], page_size=page_size)
    }
    steps = [step for step in made.steps if step.file in unsettled]
    found = [_change(step, now) for step in (*steps, *_awakened(steps, now, weight))]
    return tuple(sorted(found, key=_order))


def _awakened(steps: Sequence[Step], now: Mapping[str, str], weight: str | None) -> Iterator[Step]:
    """The weight of a slice that stops being idle, unless another one is asked for."""
    idle = next((step for step in steps if step.file == "cpu.idle"), None)
    asked = any(step.file.startswith("cpu.weight") for step in steps)
    if idle is not None and now["cpu.idle"] == "1" and weight is not None and not asked:
        yield Step(field=idle.field, file="cpu.weight", value=weight, why="as it was before it was idle")


def entry(file: str, line: str, shown: str) -> str:
    """What of a file's text a line that is to be written there takes the place of."""
    if file not in _KEYED:
        return " ".join(shown.split())
    name = _name(file, line)
    lines = (" ".join(text.split()) for text in shown.split("\n"))
    return next((text for text in lines if text.split(" ")[0] == name), f"{name} {_KEYED[file]}")


def _name(file: str, line: str) -> str:
    """The device that a line is about; ``default`` for a weight that names none."""
    first, _, rest = line.partition(" ")
    return "default" if file.endswith("weight") and not rest else first


def _change(step: Step, now: Mapping[str, str]) -> Change:
    before = entry(step.file, step.value, now[step.file])
    undo = _undo(step, before, now)
    return Change(field=step.field, file=step.file, value=step.value, now=before, undo=undo)


def _undo(step: Step, before: str, now: Mapping[str, str]) -> tuple[Line, ...]:
    idle, weight = now.get("cpu.idle", "0"), now.get("cpu.weight", "100")
    if step.file in {"cpu.weight", "cpu.weight.nice"}:
        # Nice values are rounded, so the weight itself is put back; an idle cgroup has none to put back.
        return (Line("cpu.weight", weight),) if idle == "0" else ()
    if step.file == "cpu.idle" and before == "0":
        # Whoever stops being idle gets the default weight (sched_group_set_idle, Linux 5.15).
        return Line("cpu.idle", before), Line("cpu.weight", weight)
    if step.file == "cpuset.cpus.partition":
        before = before.partition(" ")[0]  # "root invalid (why)"
    if step.file in _CPUSETS and not before:
        before = _EMPTY
    return (Line(step.file, before),)


# From the outermost bound inwards. Whoever is lowered first when all are: the protections, which must not
# exceed the limit, then the soft limit, which reclaims, then the hard one, which kills what it cannot
# reclaim, then swap, into which that was reclaimed.
_RANK: Final[Mapping[str, int]] = {
    "cpu.weight": 1,
    "cpu.weight.nice": 1,
    "cpu.max.burst": 1,
    "memory.max": 1,
    "memory.high": 2,
    "memory.low": 3,
    "memory.min": 4,
    "cpuset.cpus.partition": 1,
}


def _order(change: Change) -> tuple[bool, int]:
    rank = _RANK.get(change.file, 0)
    lowers = _lowers(change)
    return lowers, -rank if lowers else rank


def _lowers(change: Change) -> bool:
    if change.file == "cpu.idle":  # 1 gives less, and forbids the weight
        return quantity.number(change.value) == 1
    if change.file in _KEYED:
        return False  # nothing else depends on them
    before, after = _amount(change.now), _amount(change.value)
    return before is not None and after is not None and after < before


def _amount(text: str) -> float | None:
    first = text.partition(" ")[0]
    return math.inf if first == "max" else quantity.size(first)


def check(asked: LinuxResources, made: Plan, now: Mapping[str, str], *, page_size: int = 4096) -> None:
    """Raises ResourcesError when the plan contradicts what stays in force, the kernel would round a size down to
    nothing, or a limit does not cover what is used and ``checkBeforeUpdate`` asks for that.
    """
    for step in made.steps:
        _check_rounding(step, page_size)
    steps = {step.file: step for step in made.steps}
    after = {**now, **{file: step.value for file, step in steps.items()}}
    _check_burst(steps, after)
    _check_weight(steps, after)
    if asked.memory is not None and asked.memory.check_before_update:
        _check_usage(steps.get("memory.max"), now)


def _check_rounding(step: Step, page_size: int) -> None:
    """A start with such a limit is refused by its outcome; what runs would be killed at once."""
    page, size = unit(step.file, page_size), quantity.size(step.value)
    if step.field == "memory.swap" or page is None or not size or size >= page:
        return  # of swap a difference is left, which is less than a page where the limit in force was rounded down
    why = f"the kernel counts whole pages of {page} bytes, and rounds down, here to 0"
    nonsense(step.field, step.value, why, f"Give {page} bytes or more.")


def _check_burst(steps: Mapping[str, Step], after: Mapping[str, str]) -> None:
    quota, burst = _amount(after.get("cpu.max", "max")), _amount(after.get("cpu.max.burst", "0"))
    if quota is None or burst is None or burst <= quota:
        return
    if step := steps.get("cpu.max.burst"):
        why = f"it would exceed the quota of {after['cpu.max']}"
        nonsense(step.field, step.value, why, "Give at most the quota, or raise cpu.quota with it.")
    if step := steps.get("cpu.max"):
        why = f"it would be less than the burst in force, {after['cpu.max.burst']}"
        nonsense(step.field, step.value, why, "Give at least the burst, or lower cpu.burst with it.")


def _check_weight(steps: Mapping[str, Step], after: Mapping[str, str]) -> None:
    if quantity.number(after.get("cpu.idle", "0")) != 1:
        return
    for step in filter(None, map(steps.get, ("cpu.weight", "cpu.weight.nice"))):
        why = "the slice is idle, and with cpu.idle=1 the kernel refuses every cpu.weight"
        nonsense(step.field, step.value, why, "Give cpu.idle 0 with it.")


def _check_usage(step: Step | None, now: Mapping[str, str]) -> None:
    limit = _amount(step.value) if step is not None else None
    used = quantity.number(now.get("memory.current", "0")) or 0
    if step is not None and limit is not None and limit <= used:
        nonsense(
            step.field,
            step.value,
            f"the slice uses {used} bytes, and checkBeforeUpdate allows no limit at or below that",
            "Give a higher limit, or leave checkBeforeUpdate out to have memory reclaimed.",
        )
