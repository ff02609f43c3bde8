import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmcg.cli import flags
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.errors import ResourcesError
from swarmcg.resources import (
    Abilities,
    BlockIO,
    Cpu,
    Device,
    LinuxResources,
    Memory,
    Pids,
    ThrottleDevice,
    WeightDevice,
    plan,
)

SWAP = frozenset({"memory.swap"})
G = 1 << 30


def read(*words: str, base: LinuxResources | None = None) -> tuple[LinuxResources, frozenset[str]]:
    parser = Parser("test", "", "")
    flags.add_limits(parser)
    return flags.resources(parser.parse_args(words), base or LinuxResources())


def test_nothing_asked_is_nothing() -> None:
    assert read() == (LinuxResources(), frozenset())


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--cpu-shares 512", {"cpu": Cpu(shares=512)}),
        ("--cpu-shares 0", {}),
        ("--cpu-period 50000 --cpu-quota 25000", {"cpu": Cpu(period=50000, quota=25000)}),
        ("--cpu-quota -1", {"cpu": Cpu(quota=-1)}),
        ("--cpus 1.5", {"cpu": Cpu(period=100_000, quota=150_000)}),
        ("--cpus 0", {}),
        ("--cpuset-cpus 0-3,7 --cpuset-mems 0", {"cpu": Cpu(cpus="0-3,7", mems="0")}),
        ("--memory-reservation 1g", {"memory": Memory(reservation=G)}),
        ("--memory-swappiness 0", {"memory": Memory(swappiness=0)}),
        ("--oom-kill-disable", {"memory": Memory(disable_oom_killer=True)}),
        ("--blkio-weight 300", {"block_io": BlockIO(weight=300)}),
        (
            "--blkio-weight-device 8:0:300",
            {"block_io": BlockIO(weight_device=(WeightDevice(major=8, minor=0, weight=300),))},
        ),
        ("--pids-limit 100", {"pids": Pids(limit=100)}),
        ("--pids-limit 0", {"pids": Pids(limit=-1)}),
        ("--pids-limit -1", {"pids": Pids(limit=-1)}),
        ("--device /dev/null", {"devices": (Device(allow=True, type="c", major=1, minor=3, access="rwm"),)}),
        (
            "--device /dev/null:/dev/null:r",
            {"devices": (Device(allow=True, type="c", major=1, minor=3, access="r"),)},
        ),
    ],
)
def test_flags_mean_what_they_mean_in_docker(words: str, wanted: dict[str, Any]) -> None:
    assert read(*words.split()) == (LinuxResources(**wanted), frozenset())


def test_rates_of_disks_add_up() -> None:
    asked, _ = read(
        *["--device-read-bps", "8:0:1m", "--device-read-bps", "8:16:2m", "--device-write-iops", "8:0:100"]
    )
    assert asked.block_io == BlockIO(
        throttle_read_bps_device=(
            ThrottleDevice(major=8, minor=0, rate=1 << 20),
            ThrottleDevice(major=8, minor=16, rate=2 << 20),
        ),
        throttle_write_iops_device=(ThrottleDevice(major=8, minor=0, rate=100),),
    )


NULL = Device(allow=True, type="c", major=1, minor=3, access="rwm")


def test_a_device_may_be_named_by_a_link_whose_name_has_colons(tmp_path: Path) -> None:
    link = tmp_path / "pci-0000:00:1f.2-ata-1:r"
    link.symlink_to("/dev/null")
    assert read("--device", str(link))[0].devices == (NULL,)
    assert read("--device", f"{link}:rw")[0].devices == (msgspec.structs.replace(NULL, access="rw"),)
    assert read("--device", f"{link}:{link}:w")[0].devices == (msgspec.structs.replace(NULL, access="w"),)


def test_a_disk_named_by_a_file_or_directory_is_answered_with_the_device_that_it_lies_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    number = os.stat(tmp_path).st_dev
    told = f"{os.major(number)}:{os.minor(number)}" if os.major(number) else "findmnt"  # on tmpfs
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(UsageError) as caught:
            read("--device-read-bps", f"{place}:1m")
        assert caught.value.value == str(place)
        assert "it is no device" in (caught.value.cause or "")
        assert told in (caught.value.remedy or "")


def test_a_file_system_without_a_device_says_how_to_find_it() -> None:
    with pytest.raises(UsageError) as caught:
        read("--blkio-weight-device", "/proc:100")
    assert "findmnt --target /proc" in (caught.value.remedy or "")


def test_a_directory_stands_for_every_device_node_below_it(tmp_path: Path) -> None:
    asked, _ = read("--device", "/dev/pts:rw")
    nodes = [entry for entry in os.scandir("/dev/pts") if stat.S_ISCHR(entry.stat().st_mode)]
    assert asked.devices is not None
    numbers = {(rule.type, rule.major, rule.minor, rule.access) for rule in asked.devices}
    wanted = [entry.stat().st_rdev for entry in nodes]
    assert numbers >= {("c", os.major(number), os.minor(number), "rw") for number in wanted}
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "link").symlink_to("/dev/null")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no device node in this directory"):
        read("--device", str(tmp_path))


def test_numbers_for_a_device_are_answered_with_the_rule_to_give() -> None:
    with pytest.raises(UsageError) as caught:
        read("--device", "10:200:rw")
    assert "--device-cgroup-rule 'c 10:200 rw'" in (caught.value.remedy or "")


def test_device_rules() -> None:
    asked, _ = read("--device-cgroup-rule", "c 42:* rw", "--device-cgroup-rule", "a *:* rwm")
    assert asked.devices == (
        Device(allow=True, type="c", major=42, minor=None, access="rw"),
        Device(allow=True, type="a", major=None, minor=None, access="rwm"),
    )


@pytest.mark.parametrize(
    ("words", "memory", "lenient"),
    [
        ("-m 1g", Memory(limit=G, swap=2 * G), SWAP),
        ("--memory 1g", Memory(limit=G, swap=2 * G), SWAP),
        ("-m 1g --memory-swap 0", Memory(limit=G, swap=2 * G), SWAP),
        ("-m 1g --memory-swap 1g", Memory(limit=G, swap=G), frozenset()),
        ("-m 1g --memory-swap 3g", Memory(limit=G, swap=3 * G), frozenset()),
        ("-m 1g --memory-swap -1", Memory(limit=G, swap=-1), frozenset()),
        ("-m -1", Memory(limit=-1), frozenset()),
        ("-m 0", None, frozenset()),
    ],
)
def test_a_memory_limit_alone_allows_as_much_swap(
    words: str, memory: Memory | None, lenient: frozenset[str]
) -> None:
    asked, implied = read(*words.split())
    assert (asked.memory, implied) == (memory, lenient)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("-m 1g", str(G)),
        ("-m 1g --memory-swap 1g", "0"),
        ("-m 1g --memory-swap -1", "max"),
        ("-m 1g --memory-swap 3g", str(2 * G)),
    ],
)
def test_swap_in_the_kernels_file(words: str, value: str) -> None:
    asked, _ = read(*words.split())
    abilities = Abilities(mode="unified", controllers=frozenset({"memory"}))
    assert {s.file: s.value for s in plan(asked, abilities).steps}["memory.swap.max"] == value


def test_flags_override_resources_field_by_field() -> None:
    base = LinuxResources(
        memory=Memory(limit=G, swap=4 * G, reservation=5), cpu=Cpu(shares=7), pids=Pids(limit=1)
    )
    asked, lenient = read(*["-m", "2g", "--cpus", "2"], base=base)
    assert asked.memory == Memory(limit=2 * G, swap=4 * G, reservation=5)
    assert asked.cpu == Cpu(shares=7, quota=200_000, period=100_000)
    assert asked.pids == Pids(limit=1)
    assert lenient == frozenset()
    assert read("--memory-swap", "3g", base=base)[0].memory == Memory(limit=G, swap=3 * G, reservation=5)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--memory-swap", "1g"], "--memory-swap needs --memory"),
        (["--cpus", "1", "--cpu-quota", "5"], "--cpus and --cpu-quota contradict each other"),
        (["--cpus", "1", "--cpu-period", "5"], "--cpus and --cpu-period contradict each other"),
        (["--cpu-shares", "x"], "--cpu-shares cannot be used"),
        (["--blkio-weight-device", "8:0"], "--blkio-weight-device cannot be used"),
        (["--device-read-bps", "8:0:x"], "--device-read-bps cannot be used"),
        (["--device-read-bps", "/dev/null:1m"], "--device-read-bps cannot be used"),
        (["--device-write-iops", "/nonexistent:5"], "--device-write-iops cannot be used"),
        (["--device-write-iops", "5"], "--device-write-iops cannot be used"),
        (["--device", "/etc/passwd"], "--device cannot be used"),
        (["--device", "/dev/nonexistent"], "--device cannot be used"),
        (["--device", "/dev/nonexistent:rw"], "--device cannot be used"),
        (["--device", "/dev/null:/dev/zero"], "--device cannot be used"),
        (["--device-cgroup-rule", "c 1:3"], "--device-cgroup-rule cannot be used"),
        (["--cpu", "1"], "test: unrecognized arguments: --cpu 1"),
    ],
)
def test_nonsense_is_one_error(words: list[str], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert caught.value.what == what
    assert caught.value.reason
    assert caught.value.remedy


def test_a_number_that_oci_cannot_hold_names_the_flag() -> None:
    with pytest.raises(UsageError, match=r"^--memory cannot be used \(value '9999999p'\)"):
        read("-m", "9999999p")


def test_a_field_of_the_file_that_is_wrong_is_named_beside_flags() -> None:
    with pytest.raises(ResourcesError) as caught:
        read("--pids-limit", "5", base=LinuxResources(cpu=Cpu(shares=-1)))
    assert caught.value.path == "cpu.shares"


def test_a_block_device_is_named_by_its_path() -> None:
    disks = (
        [f"/dev/{name}" for name in os.listdir("/sys/block") if os.path.exists(f"/dev/{name}")]
        if os.path.isdir("/sys/block")
        else []
    )
    if not disks:
        pytest.skip("no block device here")
    number = os.stat(disks[0]).st_rdev
    asked, _ = read("--device-read-bps", f"{disks[0]}:1m")
    assert asked.block_io is not None
    assert asked.block_io.throttle_read_bps_device == (
        ThrottleDevice(major=os.major(number), minor=os.minor(number), rate=1 << 20),
    )


@pytest.mark.parametrize("text", ["/dev/null:x", "/dev/null:", "/dev/null:/dev/null:rx"])
def test_wrong_permissions_of_a_device_are_what_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="is no permission") as caught:
        read("--device", text)
    assert "rwm" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("flag", "text"),
    [("--cpu-shares", "-1"), ("--blkio-weight", "70000"), ("--blkio-weight-device", "8:0:70000")],
)
def test_a_value_out_of_its_type_is_told_of_the_flag_that_said_it(flag: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"^{flag} cannot be used"):
        read(f"{flag}={text}")
