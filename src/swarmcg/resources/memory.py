"""``memory`` of the OCI resources: the controller memory."""

from collections.abc import Iterator
from typing import Final

from swarmcg.bot import Row
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.rows import impossible, nonsense, satisfied, written
from swarmcg.resources.spec import LinuxResources, Memory

__all__ = ["plan"]

_SWAP_FILE: Final = "memory.swap.max"
_HIGHEST_SWAPPINESS: Final = 100


def plan(resources: LinuxResources, abilities: Abilities) -> Iterator[Row]:
    """The rows of ``memory``."""
    memory = resources.memory or Memory()
    yield from _size("memory.reservation", "memory.low", memory.reservation)
    yield from _swap(memory, abilities)
    yield from _size("memory.limit", "memory.max", memory.limit)
    yield from _check_before_update(memory)
    yield from _kernel("memory.kernel", memory.kernel)
    yield from _kernel("memory.kernelTCP", memory.kernel_tcp)
    yield from _swappiness(memory)
    yield from _flags(memory)


def _size(field: str, file: str, size: int | None) -> Iterator[Row]:
    if size is None:
        return
    _check_negative(field, size)
    if size == 0:
        yield satisfied(field, file, "0 means that nothing is asked for")
    else:
        yield written(field, file, "max" if size == -1 else size, "bytes as given; -1: max")


def _check_negative(field: str, size: int) -> None:
    if size < -1:
        nonsense(field, size, "of the negative numbers only -1 has a meaning: no limit", "Give bytes, or -1.")


def _swap(memory: Memory, abilities: Abilities) -> Iterator[Row]:
    asked, limit = memory.swap or 0, memory.limit or 0
    _check_negative("memory.swap", asked)
    if asked == -1 or (asked == 0 and limit == -1):
        yield _unlimited_swap("memory.swap" if memory.swap is not None else "memory.limit", abilities)
    elif asked:
        _check_swap(asked, limit)
        why = "OCI counts memory and swap together, cgroup v2 swap alone: swap - limit"
        yield written("memory.swap", _SWAP_FILE, asked - limit, why)
    elif memory.swap is not None:
        yield satisfied("memory.swap", _SWAP_FILE, "0 means that nothing is asked for")


def _unlimited_swap(field: str, abilities: Abilities) -> Row:
    if abilities.files is not None and _SWAP_FILE not in abilities.files:
        return satisfied(field, _SWAP_FILE, "the kernel counts no swap for cgroups, so nothing limits it")
    return written(field, _SWAP_FILE, "max", "-1, or 0 beside a limit of -1: swap without limit")


def _check_swap(asked: int, limit: int) -> None:
    if limit <= 0:
        nonsense(
            "memory.swap",
            asked,
            "it counts memory and swap together, so it needs a memory.limit to be told apart",
            "Give a memory.limit, or -1 for swap without limit.",
        )
    if asked < limit:
        nonsense(
            "memory.swap",
            asked,
            f"memory+swap limit should be >= memory limit, which is {limit}",
            "Give memory and swap together, or the limit itself for no swap at all.",
        )


def _check_before_update(memory: Memory) -> Iterator[Row]:
    if memory.check_before_update is not None:
        why = "when the limit of a running slice is changed: refused at or below what it uses"
        yield satisfied(
            "memory.checkBeforeUpdate", None, why if memory.check_before_update else "as it is by itself"
        )


def _kernel(field: str, size: int | None) -> Iterator[Row]:
    if size is None:
        return
    _check_negative(field, size)
    if size in {0, -1}:
        yield satisfied(field, None, "no limit of its own is asked for, and cgroup v2 has none")
    else:
        yield impossible(
            field,
            "cgroup v2 has no limit of its own for kernel memory: memory.max counts it",
            f"Leave {field} out; memory.limit covers it.",
            value=size,
        )


def _swappiness(memory: Memory) -> Iterator[Row]:
    if memory.swappiness is None:
        return
    if memory.swappiness > _HIGHEST_SWAPPINESS:
        nonsense(
            "memory.swappiness", memory.swappiness, "it goes from 0 to 100", "Give a number in this range."
        )
    yield impossible(
        "memory.swappiness",
        "cgroup v2 has no swappiness of its own for a cgroup",
        "Leave it out; memory.swap limits swap, and sysctl vm.swappiness holds for the host.",
        value=memory.swappiness,
    )


def _flags(memory: Memory) -> Iterator[Row]:
    if memory.disable_oom_killer:
        yield impossible(
            "memory.disableOOMKiller",
            "cgroup v2 cannot switch the OOM killer off",
            "Leave it out, or set unified memory.high to throttle before memory.max kills.",
            value="true",
        )
    elif memory.disable_oom_killer is not None:
        yield satisfied("memory.disableOOMKiller", None, "the OOM killer is on, as always in cgroup v2")
    if memory.use_hierarchy:
        yield satisfied(
            "memory.useHierarchy", None, "memory is counted hierarchically, as always in cgroup v2"
        )
    elif memory.use_hierarchy is not None:
        yield impossible(
            "memory.useHierarchy",
            "cgroup v2 always counts memory hierarchically",
            "Leave it out, or say true.",
            value="false",
        )
