"""What was seen of a host, judged: pure, one small function a check."""

from collections.abc import Callable, Iterator
from typing import Final

from swarmcg.doctor.check import Check
from swarmcg.doctor.judge import cgroups, controllers, disks, host, kernel, places, systemd
from swarmcg.doctor.seen import Linux, Seen

__all__ = ["judge"]

_ANYWHERE: Final[tuple[Callable[[Seen], Iterator[Check]], ...]] = (
    host.platform,
    host.python,
    host.packages,
    places.places,
)
_LINUX: Final[tuple[Callable[[Linux], Iterator[Check]], ...]] = (
    kernel.pidfd,
    kernel.age,
    cgroups.mode,
    cgroups.writable,
    cgroups.container,
    systemd.version,
    systemd.user_manager,
    systemd.bots_unit,
    cgroups.home,
    cgroups.ownerless,
    controllers.controllers,
    controllers.swap_accounting,
    controllers.huge_pages,
    cgroups.recursive_protection,
    cgroups.namespace_delegation,
    cgroups.fast_joins,
    disks.schedulers,
    kernel.pressure,
    kernel.log,
    kernel.devices,
    kernel.network,
    kernel.open_files,
)


def judge(seen: Seen) -> list[Check]:
    """Every check that applies to the host, in the order in which one would mend things."""
    checks = [check for find in _ANYWHERE for check in find(seen)]
    if seen.linux is not None:
        checks += [check for find in _LINUX for check in find(seen.linux)]
    return checks
