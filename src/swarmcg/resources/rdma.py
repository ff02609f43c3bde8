"""``rdma`` of the OCI resources: the controller rdma."""

import re
from collections.abc import Iterator
from typing import Final

from swarmcg.bot import Row
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.rows import nonsense, written
from swarmcg.resources.spec import LinuxResources, Rdma

__all__ = ["plan"]

# The kernel reads these numbers as int (kernel/cgroup/rdma.c).
_MOST: Final = 2**31 - 1
_NAME: Final = re.compile(r"[!-.0-~]+", re.ASCII)  # printable, no space, no slash


def plan(resources: LinuxResources, abilities: Abilities) -> Iterator[Row]:  # noqa: ARG001  every controller's signature
    """The rows of ``rdma``: one line a device."""
    for device, limits in (resources.rdma or {}).items():
        field = f"rdma.{device}"
        if not _NAME.fullmatch(device):
            nonsense(field, device, "no RDMA device is named so", "Use a name from /sys/class/infiniband.")
        line = " ".join((device, *_limits(field, limits)))
        yield written(field, "rdma.max", line, "handles and objects as given, one line a device")


def _limits(field: str, limits: Rdma) -> Iterator[str]:
    if limits.hca_handles is None and limits.hca_objects is None:
        nonsense(
            field, None, "it limits neither handles nor objects", "Give hcaHandles, hcaObjects, or both."
        )
    for name, key, limit in (
        ("hcaHandles", "hca_handle", limits.hca_handles),
        ("hcaObjects", "hca_object", limits.hca_objects),
    ):
        if limit is not None and limit > _MOST:
            nonsense(f"{field}.{name}", limit, f"the kernel counts to {_MOST}", "Leave it out for no limit.")
        if limit is not None:
            yield f"{key}={limit}"
