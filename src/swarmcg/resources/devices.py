"""``devices`` of the OCI resources: a BPF program on the slice, since cgroup v2 has no file for them."""

import base64
import contextlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from swarmcg.bot import Row
from swarmcg.resources import device_program
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.device_rules import DeviceRules, complete
from swarmcg.resources.instruction import INSTRUCTION_BYTES
from swarmcg.resources.rows import impossible, nonsense, satisfied
from swarmcg.resources.spec import Device, LinuxResources

__all__ = ["FIELD", "plan", "recorded", "remembered", "rules"]

FIELD: Final = "devices"
"""The name of the field, and of its entry in a report's limits."""

_WHY: Final = "a BPF program on the slice decides at each open and mknod"


def plan(resources: LinuxResources, abilities: Abilities) -> Iterator[Row]:
    """The row of ``devices``: none without the field, one for all rules with it, even for an empty list."""
    if resources.devices is None:
        return
    asked = complete(resources.devices)
    if asked.all_allowed:
        yield satisfied(FIELD, None, "every device is allowed, as it is without rules")
        return
    _check_length(asked, abilities)
    control = abilities.devices
    if control.lack is not None:
        yield impossible(FIELD, control.lack.why, control.lack.remedy, value=asked)
        return
    others = f"; the rules of {' and '.join(control.above)} count as well" if control.above else ""
    yield Row(field=FIELD, file=None, value=str(asked), why=_WHY + others, enforceable=True)


def rules(asked: Sequence[Device] | None, rows: Iterable[Row]) -> DeviceRules | None:
    """What is to be put in force, by the row that :func:`plan` gave; None when that takes no program."""
    needed = any(row.field == FIELD and row.enforceable and row.value is not None for row in rows)
    return complete(asked) if asked is not None and needed else None


def recorded(asked: DeviceRules) -> dict[str, str]:
    """The rules in so few bytes that the longest list fits into an extended attribute (64 KiB)."""
    return {"zlib": base64.b64encode(zlib.compress(msgspec.json.encode(asked))).decode()}


def remembered(told: object) -> DeviceRules | None:
    """What :func:`recorded` gave; None for what it did not give."""
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError, zlib.error):
        packed = msgspec.convert(told, dict[str, str]).get("zlib", "")
        return msgspec.json.decode(zlib.decompress(base64.b64decode(packed)), type=DeviceRules)
    return None


def _check_length(asked: DeviceRules, abilities: Abilities) -> None:
    length, most = len(device_program.assemble(asked)), device_program.most_bytes(abilities.kernel)
    if length <= most:
        return
    size = INSTRUCTION_BYTES
    nonsense(
        FIELD,
        f"{len(asked.exceptions)} nodes",
        f"the program for them has {length // size} instructions, and this kernel takes {most // size}",
        "Name fewer: a rule without minor covers all nodes of a driver.",
    )
