"""What becomes of limits where nothing can be limited: each is told, with the reason and the cure."""

import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from swarmcg.bot import Bandwidth, Row
from swarmcg.errors import UnenforceableError
from swarmcg.resources import Abilities, LinuxResources, plan
from swarmcg.resources.plan import WITHOUT_IT

__all__ = ["refusal", "unenforced"]

_NAMES: Final = {"darwin": "macOS", "win32": "Windows"}
_REMEDY: Final = "Run the bot on a Linux host with cgroup v2, or leave the limit out."


def unenforced(resources: LinuxResources | None, bandwidth: Bandwidth | None = None) -> tuple[Row, ...]:
    """A row for every field that is asked for. Raises ResourcesError for what makes no sense on any host."""
    made = plan(resources or LinuxResources(), Abilities(mode="none"), bandwidth=bandwidth)
    why = f"{_NAMES.get(sys.platform, 'this platform')} has no cgroups"
    return tuple(
        msgspec.structs.replace(row, why=why, enforceable=False, remedy=_REMEDY) for row in made.rows
    )


def refusal(rows: Sequence[Row]) -> UnenforceableError:
    """The error for a policy that refuses to start without these; its value holds the rows."""
    fields = ", ".join(row.field for row in rows)
    return UnenforceableError(
        f"{fields} cannot be enforced on this host",
        value=[msgspec.to_builtins(row) for row in rows],
        cause=rows[0].why,
        remedy=f"{_REMEDY} {WITHOUT_IT}",
    )
