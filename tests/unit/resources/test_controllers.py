"""What each field becomes, controller by controller: tables of what is written, and of what makes no sense."""

from typing import Any

import pytest

from swarmcg.errors import ResourcesError
from swarmcg.resources import Abilities, Disk, Lack, LinuxResources, hugetlb, plan
from swarmcg.resources.cpu import linear_weight, quadratic_weight
from tests.unit.resources.hosts import DISKS, planned, row, values

DISK = {"major": 8, "minor": 0}
PARTITION = {"major": 8, "minor": 1}
COST = {"major": 8, "minor": 16}
PLAIN = {"major": 8, "minor": 32}
GONE = {"major": 9, "minor": 9}


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ({"cpu": {}}, {}),
        ({"cpu": {"shares": 1}}, {"cpu.weight": "1"}),
        ({"cpu": {"shares": 2**64 - 1}}, {"cpu.weight": "10000"}),
        ({"cpu": {"quota": 0}}, {"cpu.max": "max 100000"}),
        ({"cpu": {"quota": -5}}, {"cpu.max": "max 100000"}),
        ({"cpu": {"quota": 1000, "period": 1000}}, {"cpu.max": "1000 1000"}),
        ({"cpu": {"quota": 2000, "burst": 2000}}, {"cpu.max": "2000 100000", "cpu.max.burst": "2000"}),
        ({"cpu": {"quota": -1, "burst": 9999}}, {"cpu.max": "max 100000", "cpu.max.burst": "9999"}),
        ({"cpu": {"burst": 0}}, {"cpu.max.burst": "0"}),
        ({"cpu": {"idle": 1}}, {"cpu.idle": "1"}),
        ({"cpu": {"idle": 0, "shares": 1024}}, {"cpu.weight": "100", "cpu.idle": "0"}),
        ({"cpu": {"idle": 1, "shares": 0}}, {"cpu.idle": "1"}),
        ({"cpu": {"cpus": "0-3,7", "mems": "0"}}, {"cpuset.cpus": "0-3,7", "cpuset.mems": "0"}),
        ({"cpu": {"realtimeRuntime": 0, "realtimePeriod": 0}}, {}),
        ({"memory": {"limit": 0, "reservation": 0, "swap": 0}}, {}),
        ({"memory": {"limit": -1}}, {"memory.max": "max", "memory.swap.max": "max"}),
        ({"memory": {"limit": 33554433}}, {"memory.max": "33554433"}),
        ({"memory": {"reservation": -1}}, {"memory.low": "max"}),
        ({"memory": {"reservation": 4096}}, {"memory.low": "4096"}),
        ({"memory": {"swap": -1}}, {"memory.swap.max": "max"}),
        ({"memory": {"limit": -1, "swap": -1}}, {"memory.max": "max", "memory.swap.max": "max"}),
        ({"memory": {"kernel": -1, "kernelTCP": 0, "disableOOMKiller": False, "useHierarchy": True}}, {}),
        ({"memory": {"checkBeforeUpdate": True}}, {}),
        ({"pids": {}}, {}),
        ({"pids": {"limit": -7}}, {"pids.max": "max"}),
        ({"pids": {"limit": 4194304}}, {"pids.max": "4194304"}),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
            {"hugetlb.2MB.max": "0", "hugetlb.2MB.rsvd.max": "0"},
        ),
        ({"rdma": {"mlx5_0": {"hcaHandles": 0}}}, {"rdma.max": "mlx5_0 hca_handle=0"}),
        ({"rdma": {"mlx5_0": {"hcaObjects": 9}}}, {"rdma.max": "mlx5_0 hca_object=9"}),
        (
            {"rdma": {"m": {"hcaHandles": 3, "hcaObjects": 2**31 - 1}}},
            {"rdma.max": "m hca_handle=3 hca_object=2147483647"},
        ),
        ({"network": {"classID": 0, "priorities": []}}, {}),
        ({"unified": {"memory.high": "64M\n"}}, {"memory.high": "64M"}),
        ({"unified": {"cgroup.max.depth": "2"}}, {"cgroup.max.depth": "2"}),
        ({"blockIO": {"weight": 0, "leafWeight": 0}}, {}),
        ({"blockIO": {"weightDevice": [DISK | {"weight": 0}]}}, {}),
        ({"blockIO": {"weight": 1000}}, {"io.bfq.weight": "1000", "io.weight": "10000"}),
        ({"blockIO": {"weightDevice": [DISK | {"weight": 500}]}}, {"io.bfq.weight": "8:0 500"}),
        ({"blockIO": {"weightDevice": [COST | {"weight": 500}]}}, {"io.weight": "8:16 4950"}),
        ({"blockIO": {"weightDevice": [PARTITION | {"weight": 10}]}}, {"io.bfq.weight": "8:0 10"}),
        ({"blockIO": {"throttleReadBpsDevice": [DISK | {"rate": 1}]}}, {"io.max": "8:0 rbps=1"}),
        ({"blockIO": {"throttleWriteIOPSDevice": [DISK | {"rate": 0}]}}, {"io.max": "8:0 wiops=max"}),
        ({"blockIO": {"throttleReadIOPSDevice": [PARTITION | {"rate": 5}]}}, {"io.max": "8:0 riops=5"}),
        (
            {
                "blockIO": {
                    "throttleWriteIOPSDevice": [DISK | {"rate": 4}],
                    "throttleReadIOPSDevice": [DISK | {"rate": 3}],
                    "throttleWriteBpsDevice": [DISK | {"rate": 2}],
                    "throttleReadBpsDevice": [DISK | {"rate": 9}, PARTITION | {"rate": 1}],
                }
            },
            {"io.max": "8:0 rbps=1 wbps=2 riops=3 wiops=4"},
        ),
    ],
)
def test_written(asked: dict[str, Any], written: dict[str, str]) -> None:
    made = planned(asked)
    assert {step.file: step.value for step in made.steps} == written
    assert made.unenforced == ()


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"cpu": {"quota": 999}}, "cpu.quota"),
        ({"cpu": {"quota": 2**63 - 1}}, "cpu.quota"),
        ({"cpu": {"period": 0}}, "cpu.period"),
        ({"cpu": {"period": 999}}, "cpu.period"),
        ({"cpu": {"period": 1000001}}, "cpu.period"),
        ({"cpu": {"quota": 2000, "burst": 2001}}, "cpu.burst"),
        ({"cpu": {"burst": 2**64 - 1}}, "cpu.burst"),
        ({"cpu": {"idle": 2}}, "cpu.idle"),
        ({"cpu": {"idle": -1}}, "cpu.idle"),
        ({"cpu": {"idle": 1, "shares": 2}}, "cpu.shares"),
        ({"cpu": {"idle": 1}, "unified": {"cpu.weight": "5"}}, "unified.cpu.weight"),
        ({"cpu": {"shares": 2}, "unified": {"cpu.idle": "1"}}, "cpu.shares"),
        ({"cpu": {"cpus": ""}}, "cpu.cpus"),
        ({"cpu": {"cpus": "0,"}}, "cpu.cpus"),
        ({"cpu": {"cpus": "3-1"}}, "cpu.cpus"),
        ({"cpu": {"cpus": "0 1"}}, "cpu.cpus"),
        ({"cpu": {"cpus": "-1"}}, "cpu.cpus"),
        ({"cpu": {"cpus": "٣"}}, "cpu.cpus"),
        ({"cpu": {"cpus": "0-999999999999"}}, "cpu.cpus"),
        ({"cpu": {"cpus": "7-8"}}, "cpu.cpus"),
        ({"cpu": {"mems": "1"}}, "cpu.mems"),
        ({"memory": {"limit": -2}}, "memory.limit"),
        ({"memory": {"reservation": -2}}, "memory.reservation"),
        ({"memory": {"limit": 1, "swap": -2}}, "memory.swap"),
        ({"memory": {"swap": 5}}, "memory.swap"),
        ({"memory": {"limit": -1, "swap": 5}}, "memory.swap"),
        ({"memory": {"limit": 0, "swap": 5}}, "memory.swap"),
        ({"memory": {"limit": 6, "swap": 5}}, "memory.swap"),
        ({"memory": {"kernel": -2}}, "memory.kernel"),
        ({"memory": {"swappiness": 101}}, "memory.swappiness"),
        ({"pids": {"limit": 4194305}}, "pids.limit"),
        ({"hugepageLimits": [{"pageSize": "64KB", "limit": 1}]}, "hugepageLimits[0].pageSize"),
        ({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}, "hugepageLimits[0].pageSize"),
        ({"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]}, "hugepageLimits[0].pageSize"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}] * 2}, "hugepageLimits[1].pageSize"),
        ({"rdma": {"mlx": {}}}, "rdma.mlx"),
        ({"rdma": {"": {"hcaHandles": 1}}}, "rdma."),
        ({"rdma": {"a b": {"hcaHandles": 1}}}, "rdma.a b"),
        ({"rdma": {"a\nb": {"hcaHandles": 1}}}, "rdma.a\nb"),
        ({"rdma": {"mlx": {"hcaObjects": 2**31}}}, "rdma.mlx.hcaObjects"),
        ({"network": {"priorities": [{"name": "a/b", "priority": 1}]}}, "network.priorities[0].name"),
        ({"blockIO": {"weight": 5}}, "blockIO.weight"),
        ({"blockIO": {"weight": 1001}}, "blockIO.weight"),
        ({"blockIO": {"leafWeight": 9}}, "blockIO.leafWeight"),
        ({"blockIO": {"weightDevice": [DISK]}}, "blockIO.weightDevice[0]"),
        ({"blockIO": {"weightDevice": [DISK | {"weight": 9}]}}, "blockIO.weightDevice[0].weight"),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}},
            "blockIO.throttleReadBpsDevice[0].major",
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 2**20, "rate": 1}]}},
            "blockIO.throttleReadBpsDevice[0].minor",
        ),
        ({"devices": [{"allow": True}]}, "devices[0].access"),
        ({"devices": [{"allow": True, "access": "rx"}]}, "devices[0].access"),
        ({"devices": [{"allow": True, "access": "r", "type": "c", "major": -2}]}, "devices[0].major"),
        ({"devices": [{"allow": True, "access": "r", "type": "c", "minor": 2**32}]}, "devices[0].minor"),
        ({"unified": {"": "1"}}, "unified."),
        ({"unified": {"memory": "1"}}, "unified.memory"),
        ({"unified": {"memory.": "1"}}, "unified.memory."),
        ({"unified": {"../memory.max": "1"}}, "unified.../memory.max"),
        ({"unified": {"memory/max": "1"}}, "unified.memory/max"),
        ({"unified": {"memory..max": "1"}}, "unified.memory..max"),
        ({"unified": {"memory.max\n": "1"}}, "unified.memory.max\n"),
        ({"unified": {"foo.bar": "1"}}, "unified.foo.bar"),
        ({"unified": {"cgroup.procs": "0"}}, "unified.cgroup.procs"),
        ({"unified": {"cgroup.kill": "1"}}, "unified.cgroup.kill"),
        ({"unified": {"cgroup.freeze": "1"}}, "unified.cgroup.freeze"),
        ({"unified": {"cgroup.subtree_control": "+cpu"}}, "unified.cgroup.subtree_control"),
        ({"unified": {"memory.max": ""}}, "unified.memory.max"),
        ({"unified": {"memory.max": " \n"}}, "unified.memory.max"),
        ({"unified": {"memory.max": "1\0"}}, "unified.memory.max"),
        ({"unified": {"memory.max": "1" * 4096}}, "unified.memory.max"),
        ({"unified": {"memory." + "x" * 300: "1"}}, "unified.memory." + "x" * 300),
    ],
)
def test_nonsense_is_an_error_of_its_field(asked: dict[str, Any], path: str) -> None:
    with pytest.raises(ResourcesError) as caught:
        planned(asked)
    assert caught.value.path == path
    assert caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("asked", "field", "file"),
    [
        ({"cpu": {"realtimeRuntime": 1}}, "cpu.realtimeRuntime", None),
        ({"cpu": {"realtimePeriod": 1}}, "cpu.realtimePeriod", None),
        ({"memory": {"kernel": 4096}}, "memory.kernel", None),
        ({"memory": {"kernelTCP": 4096}}, "memory.kernelTCP", None),
        ({"memory": {"swappiness": 0}}, "memory.swappiness", None),
        ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller", None),
        ({"memory": {"useHierarchy": False}}, "memory.useHierarchy", None),
        ({"blockIO": {"leafWeight": 10}}, "blockIO.leafWeight", None),
        (
            {"blockIO": {"weightDevice": [DISK | {"leafWeight": 10}]}},
            "blockIO.weightDevice[0].leafWeight",
            None,
        ),
        (
            {"blockIO": {"weightDevice": [PLAIN | {"weight": 10}]}},
            "blockIO.weightDevice[0].weight",
            "io.weight",
        ),
        (
            {"blockIO": {"weightDevice": [GONE | {"weight": 10}]}},
            "blockIO.weightDevice[0].weight",
            "io.weight",
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [GONE | {"rate": 1}]}},
            "blockIO.throttleReadBpsDevice[0]",
            "io.max",
        ),
        ({"network": {"classID": 1}}, "network.classID", None),
        ({"network": {"priorities": [{"name": "lo", "priority": 1}]}}, "network.priorities[0]", None),
    ],
)
def test_what_cannot_be_honoured_is_said_with_its_cure(
    asked: dict[str, Any], field: str, file: str | None
) -> None:
    made = planned(asked)
    found = row(made, field)
    assert (found.enforceable, found.file) == (False, file)
    assert found.why
    assert found.remedy
    assert made.steps == ()


def test_the_linear_rule_is_there_by_name() -> None:
    asked = LinuxResources.from_json('{"cpu":{"shares":1024}}')
    able = Abilities(mode="unified", controllers=frozenset({"cpu"}))
    assert [step.value for step in plan(asked, able, shares="linear").steps] == ["39"]
    assert [step.value for step in plan(asked, able).steps] == ["100"]


def test_more_shares_never_weigh_less() -> None:
    for rule in (linear_weight, quadratic_weight):
        weights = [rule(shares) for shares in range(1, 262_200, 37)]
        assert weights == sorted(weights)
        assert {weights[0], rule(262_144)} == {1, 10_000}


@pytest.mark.parametrize("asked", [{"weight": 500}, {"weightDevice": [PLAIN | {"weight": 10}]}])
def test_a_controller_that_is_not_there_comes_before_what_else_a_weight_lacks(asked: dict[str, Any]) -> None:
    """As for every other field of blockIO; and what else is told as what comes then."""
    held = {"io": Lack(why="cgroup v1 holds the io controller", remedy="Boot with x.")}
    disks = {"8:32": DISKS["8:32"]}
    made = planned({"blockIO": asked}, disks=disks, controllers=frozenset(), lacking=held, mode="hybrid")
    (found,) = made.rows
    assert not found.enforceable
    assert found.why.startswith("cgroup v1 holds the io controller; moreover, ")
    assert "a weight" in found.why or "no weight" in found.why
    assert found.remedy is not None
    assert found.remedy.startswith(
        "Boot with x. Then: Switch BFQ on: echo bfq > /sys/block/sdc/queue/scheduler"
    )


@pytest.mark.parametrize(
    ("name", "named"), [("loop0", False), ("zram0", False), ("ram3", False), ("vda", True)]
)
def test_the_disk_to_switch_is_none_of_memory_or_of_other_disks(name: str, *, named: bool) -> None:
    disks = {"7:0": Disk(name=name, whole="7:0", scheduler="none")}
    remedy = row(planned({"blockIO": {"weight": 500}}, disks=disks), "blockIO.weight").remedy or ""
    assert f"/sys/block/{name if named else 'DISK'}/queue" in remedy


def test_a_weight_without_a_disk_that_heeds_it_names_the_switch() -> None:
    (found,) = planned({"blockIO": {"weight": 100}}, disks={"8:32": DISKS["8:32"]}).unenforced
    assert found.remedy is not None
    assert "/sys/block/sdc/queue/scheduler" in found.remedy


def test_a_weight_is_planned_when_nobody_could_look_at_the_disks() -> None:
    io = frozenset({"io.weight", "io.max"})
    assert values({"blockIO": {"weight": 10}}, disks=None) == {"io.weight": "1"}
    assert values({"blockIO": {"weight": 10}}, disks=None, files=io | {"io.bfq.weight"}) == {
        "io.bfq.weight": "10"
    }
    assert values({"blockIO": {"weightDevice": [GONE | {"weight": 10}]}}, disks=None) == {
        "io.weight": "9:9 1"
    }
    assert values({"blockIO": {"throttleReadBpsDevice": [GONE | {"rate": 7}]}}, disks=None) == {
        "io.max": "9:9 rbps=7"
    }


def test_a_partition_is_said_to_be_one() -> None:
    made = planned({"blockIO": {"throttleReadBpsDevice": [PARTITION | {"rate": 1}]}})
    assert "8:1 is a partition" in row(made, "blockIO.throttleReadBpsDevice[0]").why


MAPPED = {
    **DISKS,
    "253:0": Disk(name="dm-0", whole="253:0", below=("8:0",), label="LVM volume vg-root"),
    "253:1": Disk(name="dm-1", whole="253:1", below=("8:0", "8:32"), label="encrypted device secret"),
    "9:0": Disk(name="md0", whole="9:0", below=("8:0", "8:16"), label="RAID md0"),
    "259:0": Disk(name="md0p1", whole="9:0", below=("8:0", "8:16"), label="RAID md0"),
}
LVM = {"major": 253, "minor": 0}
LUKS = {"major": 253, "minor": 1}
RAID = {"major": 9, "minor": 0}
PART_OF_RAID = {"major": 259, "minor": 0}


@pytest.mark.parametrize(
    ("device", "line", "words"),
    [
        (LVM, "253:0 rbps=1", "253:0 is the LVM volume vg-root, which is throttled by itself"),
        (RAID, "9:0 rbps=1", "9:0 is the RAID md0"),
        (PART_OF_RAID, "9:0 rbps=1", "259:0 is a partition, and the kernel knows whole disks only; 9:0 is"),
    ],
)
def test_a_mapped_device_is_throttled_by_itself(device: dict[str, int], line: str, words: str) -> None:
    made = planned({"blockIO": {"throttleReadBpsDevice": [device | {"rate": 1}]}}, disks=MAPPED)
    (found,) = made.rows
    assert found.value == line
    assert words in found.why


def test_the_weight_of_a_mapped_device_goes_to_the_disks_that_carry_it() -> None:
    made = planned({"blockIO": {"weightDevice": [RAID | {"weight": 500}]}}, disks=MAPPED)
    assert [(step.file, step.value) for step in made.steps] == [
        ("io.bfq.weight", "8:0 500"),
        ("io.weight", "8:16 4950"),
    ]
    assert "9:0 is the RAID md0, which has no scheduler: sda below it has" in made.rows[0].why
    assert "sdb below it" in made.rows[1].why


def test_a_weight_that_one_of_the_disks_below_ignores_says_which() -> None:
    made = planned({"blockIO": {"weightDevice": [LUKS | {"weight": 500}]}}, disks=MAPPED)
    (lacking,) = made.unenforced
    assert (lacking.field, lacking.value) == ("blockIO.weightDevice[0].weight", "8:32 4950")
    assert "sdc heeds no weight" in lacking.why
    assert "/sys/block/sdc/queue/scheduler" in str(lacking.remedy)


def test_the_last_entry_for_a_disk_holds_and_the_first_says_so() -> None:
    made = planned({"blockIO": {"throttleReadBpsDevice": [DISK | {"rate": 1}, DISK | {"rate": 2}]}})
    assert row(made, "blockIO.throttleReadBpsDevice[0]").value is None
    assert row(made, "blockIO.throttleReadBpsDevice[1]").value == "8:0 rbps=2"
    assert [step.value for step in made.steps] == ["8:0 rbps=2"]


def test_the_last_weight_of_a_disk_holds_and_the_first_says_so() -> None:
    made = planned({"blockIO": {"weightDevice": [PARTITION | {"weight": 10}, DISK | {"weight": 20}]}})
    assert [found.value for found in made.rows] == [None, "8:0 20"]
    assert [step.value for step in made.steps] == ["8:0 20"]


def test_two_leaf_weights_are_both_impossible() -> None:
    made = planned({"blockIO": {"weightDevice": [DISK | {"leafWeight": 10}, COST | {"leafWeight": 10}]}})
    assert [found.value for found in made.unenforced] == ["10", "10"]


def test_one_line_a_disk() -> None:
    two = [DISK | {"rate": 1}, {"major": 8, "minor": 16, "rate": 2}]
    made = planned({"blockIO": {"throttleReadBpsDevice": two, "throttleWriteBpsDevice": two}})
    assert [step.value for step in made.steps] == ["8:0 rbps=1 wbps=1", "8:16 rbps=2 wbps=2"]


def test_a_size_of_huge_pages_is_judged_only_where_the_kernel_was_asked() -> None:
    asked = {"hugepageLimits": [{"pageSize": "64KB", "limit": 1}]}
    made = planned(asked, hugepages=frozenset(), controllers=frozenset())
    assert [found.enforceable for found in made.rows] == [False, False]


@pytest.mark.parametrize(
    ("changes", "reservations"),
    [
        ({"files": frozenset({"hugetlb.2MB.max"})}, False),
        ({"kernel": (5, 6)}, False),
        ({"kernel": (5, 7)}, True),
        ({"kernel": (0, 0)}, True),
    ],
)
def test_reservations_are_limited_where_the_kernel_counts_them(
    changes: dict[str, Any], *, reservations: bool
) -> None:
    written = values({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, **changes)
    assert ("hugetlb.2MB.rsvd.max" in written) is reservations


def test_a_directory_that_is_none_of_huge_pages_has_no_size() -> None:
    assert hugetlb.page_size("hugepages-64kB") == "64KB"
    assert hugetlb.page_size("power") is None
