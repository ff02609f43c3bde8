"""What of a host has to be looked at before a plan can be made of what is asked for. Pure."""

from typing import Final, Literal, get_args

from swarmcg.resources.spec import Cpu, LinuxResources, Memory

__all__ = ["EVERY_LOOK", "Look", "looks"]

Look = Literal["cpusets", "devices", "disks", "files", "hugepages", "protection"]
"""A part of :class:`swarmcg.resources.Abilities` that costs system calls: its ``cpus`` and ``mems``, ``devices``,
``disks``, ``files``, ``hugepages``, and ``granted``.
"""
EVERY_LOOK: Final = frozenset[Look](get_args(Look))
_PROTECTIONS: Final = frozenset({"memory.low", "memory.min"})


def looks(asked: LinuxResources) -> frozenset[Look]:
    """The looks without which a plan of these resources would not be the same, but for the one at a slice's files."""
    cpu, memory = asked.cpu or Cpu(), asked.memory or Memory()
    needed: dict[Look, bool] = {
        "cpusets": cpu.cpus is not None or cpu.mems is not None,
        "devices": asked.devices is not None,
        "disks": asked.block_io is not None,
        "hugepages": asked.hugepage_limits is not None,
        "protection": memory.reservation is not None or not _PROTECTIONS.isdisjoint(asked.unified or ()),
    }
    return frozenset(look for look, is_needed in needed.items() if is_needed)
