"""A Linux host, looked at from all sides."""

import os
import sys

from swarmcg.cgroup import hierarchy, network
from swarmcg.doctor.look.cgroups import look_at_cgroups, look_at_home
from swarmcg.doctor.look.kernel import look_at_kernel
from swarmcg.doctor.look.systemd import look_at_systemd
from swarmcg.doctor.seen import Linux
from swarmcg.errors import SwarmcgError
from swarmcg.resources import Lack, Networking

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["look_at_linux"]


def look_at_linux(home: str | None) -> Linux:
    """See :func:`swarmcg.doctor.look.look`."""
    seen = hierarchy.look()
    return Linux(
        uid=os.geteuid(),
        kernel=look_at_kernel(),
        cgroups=look_at_cgroups(seen),
        home=look_at_home(home, seen),
        network=_network(),
        systemd=look_at_systemd(seen),
    )


def _network() -> Networking:
    try:
        return network.probe()
    except (SwarmcgError, OSError) as e:
        return Networking(
            lack=Lack(f"the kernel does not say what it can do for packets: {e}", "modprobe nf_tables")
        )
