"""What is asked for a slice, and what that means in files of cgroup v2. Pure: nothing here does I/O."""

from swarmcg.resources.abilities import Abilities, DeviceControl, Disk, Lack, Networking
from swarmcg.resources.changes import Change, Line, changes, check, companions, entry
from swarmcg.resources.device_rules import DeviceRules
from swarmcg.resources.network import Marking, NetworkPlan, Rate, changed as changed_packets, limits_packets
from swarmcg.resources.plan import Plan, Step, plan
from swarmcg.resources.readback import settled
from swarmcg.resources.spec import (
    BlockIO,
    Cpu,
    Device,
    HugepageLimit,
    InterfacePriority,
    LinuxResources,
    Memory,
    Network,
    Pids,
    Rdma,
    ThrottleDevice,
    WeightDevice,
)

__all__ = [
    "Abilities",
    "BlockIO",
    "Change",
    "Cpu",
    "Device",
    "DeviceControl",
    "DeviceRules",
    "Disk",
    "HugepageLimit",
    "InterfacePriority",
    "Lack",
    "Line",
    "LinuxResources",
    "Marking",
    "Memory",
    "Network",
    "NetworkPlan",
    "Networking",
    "Pids",
    "Plan",
    "Rate",
    "Rdma",
    "Step",
    "ThrottleDevice",
    "WeightDevice",
    "changed_packets",
    "changes",
    "check",
    "companions",
    "entry",
    "limits_packets",
    "plan",
    "settled",
]
