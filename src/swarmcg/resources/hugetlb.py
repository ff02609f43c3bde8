"""``hugepageLimits`` of the OCI resources: the controller hugetlb."""

import re
from collections.abc import Iterator
from typing import Final

from swarmcg.bot import Row
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.rows import nonsense, written
from swarmcg.resources.spec import HugepageLimit, LinuxResources

__all__ = ["page_size", "plan"]

_SIZE: Final = re.compile(r"[1-9][0-9]{0,3}[KMG]B", re.ASCII)
_DIRECTORY: Final = re.compile(r"hugepages-([0-9]+)kB", re.ASCII)
_RSVD_SINCE: Final = (5, 7)


def plan(resources: LinuxResources, abilities: Abilities) -> Iterator[Row]:
    """The rows of ``hugepageLimits``: for pages in use, and for reserved ones where they are counted."""
    seen: set[str] = set()
    for i, limit in enumerate(resources.hugepage_limits or ()):
        field = f"hugepageLimits[{i}]"
        _check(field, limit, abilities)
        if limit.page_size in seen:
            nonsense(
                f"{field}.pageSize",
                limit.page_size,
                "this size has a limit already",
                "Give one limit a size.",
            )
        seen.add(limit.page_size)
        yield written(field, f"hugetlb.{limit.page_size}.max", limit.limit, "bytes as given")
        if _counts_reservations(limit.page_size, abilities):
            why = "the same for reservations, so that mmap fails instead of a later page fault"
            yield written(field, f"hugetlb.{limit.page_size}.rsvd.max", limit.limit, why)


def page_size(directory: str) -> str | None:
    """The size as hugetlb spells it, for a directory of /sys/kernel/mm/hugepages.

    ``hugepages-2048kB`` gives ``2MB``; what is no such directory gives None.
    """
    found = _DIRECTORY.fullmatch(directory)
    if not found:
        return None
    kilobytes = int(found[1])
    for power, unit in ((20, "GB"), (10, "MB")):
        if kilobytes >= 1 << power:
            return f"{kilobytes >> power}{unit}"
    return f"{kilobytes}KB"


def _check(field: str, limit: HugepageLimit, abilities: Abilities) -> None:
    offered = ", ".join(sorted(abilities.hugepages)) or "none"
    path = f"{field}.pageSize"
    if not _SIZE.fullmatch(limit.page_size):
        nonsense(
            path,
            limit.page_size,
            "a size looks like 2MB or 1GB",
            f"Use one of this kernel's sizes: {offered}.",
        )
    known = abilities.hugepages or "hugetlb" in abilities.controllers
    if known and limit.page_size not in abilities.hugepages:
        nonsense(
            path, limit.page_size, f"this kernel has no such huge pages: {offered}", "Use one that it offers."
        )


def _counts_reservations(size: str, abilities: Abilities) -> bool:
    if abilities.files is not None:
        return f"hugetlb.{size}.rsvd.max" in abilities.files
    return abilities.kernel == (0, 0) or abilities.kernel >= _RSVD_SINCE
