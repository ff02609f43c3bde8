"""Block devices as sysfs shows them: what the kernel throttles, and what carries a mapped device."""

from pathlib import Path

import pytest

from swarmcg.cgroup.devices import disks
from swarmcg.resources import Disk


class Sysfs:
    """A tree of directories and links like /sys, as far as block devices go."""

    def __init__(self, top: Path) -> None:
        self.block = top / "dev/block"
        self._devices = top / "devices"
        self.block.mkdir(parents=True)

    def add(self, name: str, number: str, **files: str) -> Path:
        """A device at its place: ``sda``, or ``sda/sda1`` for a partition. In names of files ``__`` is a slash."""
        directory = self._devices / name
        for file, text in {"dev": number, **files}.items():
            place = directory / file.replace("__", "/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{text}\n")
        (directory / "slaves").mkdir()
        (self.block / number).symlink_to(directory)
        return directory

    def carry(self, above: str, *below: str) -> None:
        for name in below:
            (self._devices / above / "slaves" / Path(name).name).symlink_to(self._devices / name)


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    made = Sysfs(tmp_path)
    made.add("sda", "8:0", queue__scheduler="none [bfq] mq-deadline")
    made.add("sda/sda1", "8:1", partition="1")
    made.add("sda/sda2", "8:2", partition="2")
    made.add("sdb", "8:16", queue__scheduler="[none] mq-deadline")
    return made


def seen(sysfs: Sysfs) -> dict[str, Disk]:
    found = disks(None, block=str(sysfs.block))
    assert found is not None
    return found


def test_a_partition_is_throttled_with_its_disk(sysfs: Sysfs) -> None:
    assert seen(sysfs)["8:1"] == Disk(name="sda1", whole="8:0", scheduler="bfq")
    assert seen(sysfs)["8:0"] == Disk(name="sda", whole="8:0", scheduler="bfq")


def test_a_mapped_device_is_its_own_disk_and_says_what_carries_it(sysfs: Sysfs) -> None:
    """LVM over LUKS over a partition and a second disk; and a mapping that names no maker."""
    sysfs.add("dm-0", "253:0", dm__name="secret", dm__uuid="CRYPT-LUKS2-0123-secret")
    sysfs.add("dm-1", "253:1", dm__name="vg-root", dm__uuid="LVM-4567")
    sysfs.add("dm-2", "253:2", dm__name="plain", dm__uuid="")
    sysfs.carry("dm-0", "sda/sda2")
    sysfs.carry("dm-1", "dm-0", "sdb")
    sysfs.carry("dm-2", "sdb")
    found = seen(sysfs)
    assert found["253:0"] == Disk(name="dm-0", whole="253:0", below=("8:0",), label="encrypted device secret")
    assert found["253:1"] == Disk(
        name="dm-1", whole="253:1", below=("8:0", "8:16"), label="LVM volume vg-root"
    )
    assert found["253:2"] == Disk(name="dm-2", whole="253:2", below=("8:16",), label="mapped device plain")


def test_a_partition_of_a_raid_leads_to_the_disks_of_the_raid(sysfs: Sysfs) -> None:
    sysfs.add("md0", "9:0", md__level="raid1")
    sysfs.add("md0/md0p1", "259:0", partition="1")
    sysfs.carry("md0", "sda/sda1", "sdb")
    assert seen(sysfs)["259:0"] == Disk(name="md0p1", whole="9:0", below=("8:0", "8:16"), label="RAID md0")


def test_io_cost_is_the_disk_s(sysfs: Sysfs, tmp_path: Path) -> None:
    (tmp_path / "io.cost.qos").write_text("8:0 enable=0 ctrl=auto\n8:16 enable=1 ctrl=user rpct=0.00\n")
    found = disks(str(tmp_path), block=str(sysfs.block))
    assert found is not None
    assert {number for number, disk in found.items() if disk.iocost} == {"8:16"}


def test_without_sysfs_no_disk_is_known(tmp_path: Path) -> None:
    assert disks(None, block=str(tmp_path / "none")) is None
