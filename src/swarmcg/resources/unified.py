"""``unified`` of the OCI resources: files of cgroup v2 by their own names."""

import re
from collections.abc import Iterator
from typing import Final

from swarmcg.bot import Row
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.rows import nonsense, written
from swarmcg.resources.spec import LinuxResources

__all__ = ["CONTROLLERS", "HARMLESS", "plan"]

CONTROLLERS: Final = frozenset({"cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "pids", "rdma"})
"""Every controller that cgroup v2 has had by Linux 6.18."""

HARMLESS: Final = frozenset({"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"})
"""The core's own files are the supervisor's; these limit or switch something inside the slice and nothing else."""
_KEY: Final = re.compile(r"[a-z]+(\.[A-Za-z0-9_-]+)+", re.ASCII)
_LONGEST_KEY: Final = 200
# kernfs takes at most a page in one write.
_LONGEST_LINE: Final = 4095


def plan(resources: LinuxResources, abilities: Abilities) -> Iterator[Row]:  # noqa: ARG001  every controller's signature
    """The rows of ``unified``. The files need not be known to us: the kernel judges name and value."""
    for key, value in (resources.unified or {}).items():
        field = f"unified.{key}"
        _check_key(field, key)
        _check_value(field, value)
        yield written(field, key, value, "as given, after the other fields and in place of them")


def _check_key(field: str, key: str) -> None:
    controller = key.partition(".")[0]
    if not _KEY.fullmatch(key) or len(key) > _LONGEST_KEY:
        cause = "a key is the name of one file, controller.parameter, without a slash"
        nonsense(field, key, cause, "Use a name such as memory.high.")
    if controller == "cgroup" and key not in HARMLESS:
        cause = "the files of the cgroup core are the supervisor's own"
        nonsense(field, key, cause, f"Leave it out; of these only {', '.join(sorted(HARMLESS))} may be set.")
    if controller not in CONTROLLERS | {"cgroup"}:
        cause = f"cgroup v2 has no controller {controller}"
        nonsense(field, key, cause, f"Use one of {', '.join(sorted(CONTROLLERS))}.")


def _check_value(field: str, value: str) -> None:
    if not value.strip():
        nonsense(
            field, value, "the kernel takes an empty value as a reset", "Give a value, or leave the key out."
        )
    if "\0" in value:
        nonsense(field, value, "it has a NUL character", "Give text without it.")
    if any(len(line.encode()) > _LONGEST_LINE for line in value.split("\n")):
        nonsense(field, value, "the kernel takes at most 4095 bytes in one write", "Give a shorter value.")
