"""Resources in TOML: OCI's names, with sizes as people write them."""

import pytest

from swarmcg.errors import ResourcesError
from swarmcg.resources import (
    BlockIO,
    Cpu,
    HugepageLimit,
    LinuxResources,
    Memory,
    Pids,
    Rdma,
    ThrottleDevice,
)
from swarmcg.resources.toml import from_toml

G = 1 << 30


def read(text: str) -> LinuxResources:
    return from_toml(text, lambda: 16 * G)


def test_nothing_is_nothing() -> None:
    assert read("") == LinuxResources()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('memory.limit = "512M"', {"memory": Memory(limit=G // 2)}),
        ('memory.limit = "25%"', {"memory": Memory(limit=4 * G)}),
        ("memory.limit = 5", {"memory": Memory(limit=5)}),
        (
            'memory = {limit = "1.5G", swap = "max", reservation = "64m", checkBeforeUpdate = true}',
            {"memory": Memory(limit=3 * G // 2, swap=-1, reservation=64 << 20, check_before_update=True)},
        ),
        ("cpus = 1.5", {"cpu": Cpu(quota=150_000, period=100_000)}),
        ("cpus = 2", {"cpu": Cpu(quota=200_000, period=100_000)}),
        ('cpus = "max"', {"cpu": Cpu(quota=-1, period=100_000)}),
        (
            'cpus = 0.5\ncpu.shares = 512\ncpu.cpus = "0-3"',
            {"cpu": Cpu(quota=50_000, period=100_000, shares=512, cpus="0-3")},
        ),
        (
            'cpu = {quota = "20ms", period = "50ms", burst = "10ms"}',
            {"cpu": Cpu(quota=20_000, period=50_000, burst=10_000)},
        ),
        ('cpu.quota = "max"', {"cpu": Cpu(quota=-1)}),
        ('pids.limit = "max"', {"pids": Pids(limit=-1)}),
        ("pids.limit = 7", {"pids": Pids(limit=7)}),
        ("pids.limit = 0", {"pids": Pids(limit=0)}),  # OCI's 0, which is one task; a flag's is docker's
        ('pids.limit = "0"', {"pids": Pids(limit=0)}),
        (
            '[[hugepageLimits]]\npageSize = "2MB"\nlimit = "1G"',
            {"hugepage_limits": (HugepageLimit(page_size="2MB", limit=G),)},
        ),
        (
            '[[blockIO.throttleReadBpsDevice]]\nmajor = 8\nminor = 0\nrate = "10M"',
            {
                "block_io": BlockIO(
                    throttle_read_bps_device=(ThrottleDevice(major=8, minor=0, rate=10 << 20),)
                )
            },
        ),
        ("rdma.mlx5_0.hcaHandles = 3", {"rdma": {"mlx5_0": Rdma(hca_handles=3)}}),
        ('unified = {"memory.high" = "400M"}', {"unified": {"memory.high": "400M"}}),
    ],
)
def test_what_people_write(text: str, wanted: dict[str, object]) -> None:
    assert read(text) == LinuxResources(**wanted)  # type: ignore[arg-type]  # fields of several types


@pytest.mark.parametrize(
    ("text", "path", "cause"),
    [
        ('memory.limit = "12x"', "memory.limit", "not a size"),
        ('memory.limit = "200%"', "memory.limit", "at most 100%"),
        ("memory.limit = 1.5", "memory.limit", "int"),
        ("memory.limit = 2020-01-01", "memory.limit", "int"),
        ('memory.nonsense = "1G"', "memory.nonsense", "no such field"),
        ('cpu.quota = "1.5"', "cpu.quota", "microseconds"),
        ('cpus = "50%"', "cpus", "of a processor or of the whole host"),
        ("cpus = true", "cpus", "no number"),
        ("cpus = 1\ncpu.quota = 5", "cpu.quota", "both quota and period"),
        ('pids.limit = "10%"', "pids.limit", "no whole number"),
        (
            '[[blockIO.throttleReadBpsDevice]]\nmajor = 8\nminor = 0\nrate = "10%"',
            "blockIO.throttleReadBpsDevice[0].rate",
            "no percentage",
        ),
        ("memory = 5", "memory", "object"),
        ("cpu = 5\ncpus = 1", "cpu", "object"),
        ("[memory]\nlimit = ", None, "Invalid value"),
        ("\ud800", None, ""),
    ],
)
def test_what_is_wrong_is_one_error_that_names_the_field(text: str, path: str | None, cause: str) -> None:
    with pytest.raises(ResourcesError) as caught:
        read(text)
    assert caught.value.path == path
    assert cause in (caught.value.cause or "")
    assert caught.value.remedy


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ResourcesError, match="byte 0 is not UTF-8"):
        from_toml(b"\xff", lambda: G)


def test_the_host_is_asked_only_for_a_percentage() -> None:
    def never() -> int:
        raise AssertionError

    assert from_toml('memory.limit = "1G"', never) == LinuxResources(memory=Memory(limit=G))
