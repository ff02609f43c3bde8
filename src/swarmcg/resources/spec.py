"""``LinuxResources`` of the OCI runtime specification (1.2), as frozen values.

Field names are the specification's, in Python's spelling; its JSON names are used in JSON and in every
message. An absent field is None; 0 is a value of its own. The types say what the specification says about
each field; what a field means for cgroup v2, and which values make sense, is the matter of the controllers'
modules.
"""

from typing import Annotated, Literal, Self

import msgspec

from swarmcg.resources import reading

__all__ = [
    "BlockIO",
    "Cpu",
    "Device",
    "HugepageLimit",
    "InterfacePriority",
    "LinuxResources",
    "Memory",
    "Network",
    "Pids",
    "Rdma",
    "ThrottleDevice",
    "WeightDevice",
]

# The upper end of uint64 is checked by reading.typed, because msgspec's bounds have to fit into an int64.
Uint64 = Annotated[int, msgspec.Meta(ge=0)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Uint16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]


class _Part(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"
):
    """What all parts have in common: the specification's names, and no field that it does not know."""


class Device(_Part, frozen=True, kw_only=True):
    """One rule for device nodes. Type, major or minor absent: any."""

    allow: bool
    type: Literal["a", "b", "c"] | None = None
    major: Int64 | None = None
    minor: Int64 | None = None
    access: str | None = None


class Memory(
    _Part,
    frozen=True,
    kw_only=True,
    rename={
        "kernel_tcp": "kernelTCP",
        "disable_oom_killer": "disableOOMKiller",
        "use_hierarchy": "useHierarchy",
        "check_before_update": "checkBeforeUpdate",
    },
):
    """Sizes in bytes; -1 means without limit. ``swap`` counts memory and swap together."""

    limit: Int64 | None = None
    reservation: Int64 | None = None
    swap: Int64 | None = None
    kernel: Int64 | None = None
    kernel_tcp: Int64 | None = None
    swappiness: Uint64 | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(_Part, frozen=True, kw_only=True):
    """Quota, period and burst in microseconds; ``cpus`` and ``mems`` are lists such as ``0-3,7``."""

    shares: Uint64 | None = None
    quota: Int64 | None = None
    burst: Uint64 | None = None
    period: Uint64 | None = None
    realtime_runtime: Int64 | None = None
    realtime_period: Uint64 | None = None
    cpus: str | None = None
    mems: str | None = None
    idle: Int64 | None = None


class Pids(_Part, frozen=True, kw_only=True):
    """The number of tasks (threads count); negative means without limit."""

    limit: Int64 | None = None


class WeightDevice(_Part, frozen=True, kw_only=True):
    """The share of one disk's time, 10 to 1000."""

    major: Int64
    minor: Int64
    weight: Uint16 | None = None
    leaf_weight: Uint16 | None = None


class ThrottleDevice(_Part, frozen=True, kw_only=True):
    """The most that may go to or from one disk, in bytes or operations a second; 0 means without limit."""

    major: Int64
    minor: Int64
    rate: Uint64


class BlockIO(
    _Part,
    frozen=True,
    kw_only=True,
    rename={
        "leaf_weight": "leafWeight",
        "weight_device": "weightDevice",
        "throttle_read_bps_device": "throttleReadBpsDevice",
        "throttle_write_bps_device": "throttleWriteBpsDevice",
        "throttle_read_iops_device": "throttleReadIOPSDevice",
        "throttle_write_iops_device": "throttleWriteIOPSDevice",
    },
):
    """Shares and limits of disks."""

    weight: Uint16 | None = None
    leaf_weight: Uint16 | None = None
    weight_device: tuple[WeightDevice, ...] | None = None
    throttle_read_bps_device: tuple[ThrottleDevice, ...] | None = None
    throttle_write_bps_device: tuple[ThrottleDevice, ...] | None = None
    throttle_read_iops_device: tuple[ThrottleDevice, ...] | None = None
    throttle_write_iops_device: tuple[ThrottleDevice, ...] | None = None


class HugepageLimit(_Part, frozen=True, kw_only=True):
    """The most bytes in huge pages of one size, which is named as hugetlb does it: ``2MB``, ``1GB``."""

    page_size: str
    limit: Uint64


class Rdma(_Part, frozen=True, kw_only=True):
    """The most handles and objects of one RDMA device."""

    hca_handles: Uint32 | None = None
    hca_objects: Uint32 | None = None


class InterfacePriority(_Part, frozen=True, kw_only=True):
    """The priority of what is sent through one network interface."""

    name: str
    priority: Uint32


class Network(_Part, frozen=True, kw_only=True, rename={"class_id": "classID"}):
    """The class of network packets, and their priorities by interface."""

    class_id: Uint32 | None = None
    priorities: tuple[InterfacePriority, ...] | None = None


class LinuxResources(
    _Part, frozen=True, kw_only=True, rename={"hugepage_limits": "hugepageLimits", "block_io": "blockIO"}
):
    """What is asked for a slice, as the OCI runtime specification spells it."""

    devices: tuple[Device, ...] | None = None
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = None
    hugepage_limits: tuple[HugepageLimit, ...] | None = None
    network: Network | None = None
    rdma: dict[str, Rdma] | None = None
    unified: dict[str, str] | None = None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads a resources object, or the resources out of a whole ``config.json`` (none there: empty
        resources).

        Raises ResourcesError for broken JSON, and for what the specification does not know or types
        otherwise; its ``path`` is the field, as in ``blockIO.throttleReadBpsDevice[0].rate``. Whether values
        make sense is judged by :func:`swarmcg.resources.plan`.
        """
        return reading.typed(reading.resources_in(reading.json_value(text)), cls)

    def to_json(self) -> bytes:
        """The resources as JSON that :meth:`from_json` reads back as an equal value."""
        return msgspec.json.encode(self)

    def checked(self) -> Self:
        """An equal value whose types are right, or ResourcesError: constructors check nothing."""
        return reading.typed(reading.plain(self), type(self))
