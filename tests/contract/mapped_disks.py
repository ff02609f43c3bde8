"""A mapped device, as LVM and LUKS make them, is throttled by itself; so is the disk below it, for what goes through.

As root in a machine of the tests' own: it maps the trial disk.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.host.command import Command
from tests.systemd.machine import KEEP_BUSY, MB, PYTHON, device, only_report

NAME: Final = "swarmcg-trial"
CONTROL: Final = Path("/dev/mapper/control")
# Of include/uapi/linux/dm-ioctl.h: struct dm_ioctl (version, sizes, targets, opened, flags, event, device, name, uuid)
# and struct dm_target_spec; the commands of version 4, as _IOWR(0xfd, N, struct dm_ioctl).
HEAD: Final = struct.Struct("=3I2I3I2IQ128s129s7x")
TARGET: Final = struct.Struct("=QQiI16s")
CREATE, REMOVE, SUSPEND, LOAD = (0xC138FD00 + number for number in (3, 4, 6, 9))
ONCE_IT_IS_CLOSED: Final = 1 << 17  # DM_DEFERRED_REMOVE: udev may be looking at it
DEVICE_AT: Final = 40
READ: Final = ("read", "131072", "128")


@pytest.fixture
def mapped(scratch_disk: Path) -> Iterator[Path]:
    """A linear mapping of the whole disk, made by ioctls: no program for it is installed everywhere."""
    if not CONTROL.exists():
        modules = Path(os.environ["SWARMCG_TEST_MODULES"], os.uname().release)
        subprocess.run(["insmod", str(next(modules.glob("**/dm-mod.ko*")))], check=True)
    sectors = int(Path(f"/sys/block/{scratch_disk.name}/size").read_text())
    target = TARGET.pack(0, sectors, 0, 0, b"linear") + f"{device(scratch_disk)} 0".encode()
    with CONTROL.open("rb") as control, contextlib.ExitStack() as stack:
        number = ask(control.fileno(), CREATE)
        stack.callback(ask, control.fileno(), REMOVE, flags=ONCE_IT_IS_CLOSED)
        ask(control.fileno(), LOAD, target.ljust(512, b"\0"))
        ask(control.fileno(), SUSPEND)  # without the flag that asks for it this resumes: the table is in use
        yield Path(f"/dev/dm-{os.minor(number)}")


def ask(control: int, command: int, payload: bytes = b"", *, flags: int = 0) -> int:
    """One command of the device mapper for our device; its number."""
    sizes = (HEAD.size + len(payload), HEAD.size)
    head = HEAD.pack(4, 0, 0, *sizes, bool(payload), 0, flags, 0, 0, 0, NAME.encode(), b"")
    buffer = bytearray(head + payload)
    fcntl.ioctl(control, command, buffer)
    number: int = struct.unpack_from("=Q", buffer, DEVICE_AT)[0]
    return number


def test_a_mapped_device_is_throttled_by_itself(home: Path, tmp_path: Path, mapped: Path) -> None:
    command = Command(home, tmp_path)
    limit = ("--device-read-bps", f"{mapped}:{4 * MB}")
    explained = command("explain", *limit)
    assert f"{device(mapped)} is the mapped device {NAME}, which is throttled by itself" in explained.stdout
    done = command("run", *limit, "--", *PYTHON, KEEP_BUSY, str(mapped), *READ)
    assert float(done.stdout) == pytest.approx(4 * MB, rel=0.15)
    assert only_report(command).limits["io.max"].startswith(f"{device(mapped)} rbps={4 * MB} ")


def test_a_limit_on_the_disk_below_holds_for_what_goes_through_the_mapping(
    home: Path, tmp_path: Path, mapped: Path, scratch_disk: Path
) -> None:
    limit = ("--device-read-bps", f"{scratch_disk}:{4 * MB}")
    done = Command(home, tmp_path)("run", *limit, "--", *PYTHON, KEEP_BUSY, str(mapped), *READ)
    assert float(done.stdout) == pytest.approx(4 * MB, rel=0.15)
