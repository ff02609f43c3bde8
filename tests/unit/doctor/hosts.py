"""A host on which nothing is lacking, and changes to it."""

from typing import Any, Final

import msgspec

from swarmcg.doctor.check import Check
from swarmcg.doctor.judge import judge
from swarmcg.doctor.seen import Cgroups, HomeSeen, Kernel, Linux, Place, Python, Seen, Systemd
from tests.unit.resources.hosts import ABLE

MIB: Final = 1 << 20
KERNEL: Final = Kernel(release="6.12.0", version=(6, 12), hugepages={"2MB": 4, "1GB": 0}, rdma=True)
CGROUPS: Final = Cgroups(
    mode="unified",
    mount="/sys/fs/cgroup",
    options=frozenset({"rw", "nsdelegate", "memory_recursiveprot", "favordynmods"}),
    own="/sys/fs/cgroup",
    name="/",
    files=frozenset({"cgroup.kill", "cgroup.freeze", "memory.max", "memory.swap.max"}),
)
HOME: Final = HomeSeen(path="/sys/fs/cgroup/swarmcg", abilities=ABLE)
SYSTEMD: Final = Systemd(
    version=257,
    bots_unit={
        "LoadState": "loaded",
        "ActiveState": "active",
        "Delegate": "yes",
        "ControlGroup": "/system.slice/swarmcg-bots.service",
    },
)
STATE: Final = Place(
    purpose="state",
    path="/var/lib/swarmcg",
    exists="/var/lib/swarmcg",
    kind="ext4",
    free_bytes=999 * MIB,
    free_files=9999,
)
PYTHON: Final = Python(version=(3, 11), executable="/usr/bin/python3")
HOST: Final = Seen(
    platform="linux",
    python=PYTHON,
    places=(STATE,),
    linux=Linux(uid=0, kernel=KERNEL, cgroups=CGROUPS, home=HOME, systemd=SYSTEMD),
)

changed = msgspec.structs.replace


def linux(**changes: Any) -> Seen:
    """The host with other parts: ``cgroups=…``, ``home=…``."""
    assert HOST.linux is not None
    return changed(HOST, linux=changed(HOST.linux, **changes))


def verdicts(seen: Seen) -> dict[str, Check]:
    checks = judge(seen)
    assert len({check.check for check in checks}) == len(checks)
    return {check.check: check for check in checks}


def bad(seen: Seen) -> list[tuple[str, str]]:
    """What is not ok, by name."""
    return [(check.check, check.state) for check in judge(seen) if check.state != "ok"]
