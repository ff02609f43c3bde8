"""What the tests of this tier share: the machine's own interpreter, and bots that are told when to begin."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.host.command import Command

PYTHON: Final = ("/usr/bin/python3", "-I", "-S", "-c")
"""Without coverage and site-packages: a limit shall meet the program alone."""
MB: Final = 1 << 20
EAT: Final = "import sys\nb = bytearray(b'x') * (int(sys.argv[1]) << 20)\n"


def resources(place: Path, **fields: Any) -> tuple[str, str]:
    """The flag that hands these resources, in OCI's JSON, to the command."""
    file = place / f"resources-{len(list(place.iterdir()))}.json"
    file.write_text(json.dumps(fields))
    return "--resources", str(file)


def number(disk: Path) -> dict[str, int]:
    """The disk as OCI names it."""
    device = os.stat(disk).st_rdev
    return {"major": os.major(device), "minor": os.minor(device)}


def device(disk: Path) -> str:
    """The disk as the kernel names it: MAJ:MIN."""
    return "{major}:{minor}".format(**number(disk))


@contextlib.contextmanager
def setting(file: Path, value: str, back: str) -> Iterator[None]:
    """A setting of the machine, for a while."""
    file.write_text(value)
    try:
        yield
    finally:
        file.write_text(back)


# Says how many bytes or operations a second there were, after the first tenth: a throttle's first slice is free.
KEEP_BUSY: Final = """
import mmap, os, sys, time
disk = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
how, size, count = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
buffer = mmap.mmap(-1, size)
for turn in range(count):
    if turn == count // 10: began = time.monotonic()
    os.preadv(disk, [buffer], turn * size) if how == "read" else os.pwritev(disk, [buffer], turn * size)
print((count - count // 10) * (size if size > 4096 else 1) / (time.monotonic() - began))
"""
COST_MODEL: Final = "rbps=8388608 rseqiops=2000 rrandiops=2000 wbps=8388608 wseqiops=2000 wrandiops=2000"
COST_QUALITY: Final = "rpct=0 rlat=0 wpct=0 wlat=0 min=100.00 max=100.00"


@contextlib.contextmanager
def sharing(how: str, disk: Path) -> Iterator[None]:
    """The disk's time is shared by weight for a while: by BFQ, or by io.cost with a model of a slow disk."""
    if how == "bfq":
        with setting(Path(f"/sys/block/{disk.name}/queue/scheduler"), "bfq", "none"):
            yield
        return
    number, root = device(disk), Path("/sys/fs/cgroup")
    model, quality = root / "io.cost.model", root / "io.cost.qos"
    with (
        setting(model, f"{number} ctrl=user model=linear {COST_MODEL}", f"{number} ctrl=auto"),
        setting(quality, f"{number} enable=1 ctrl=user {COST_QUALITY}", f"{number} enable=0"),
    ):
        yield


def dying() -> int:
    """Cgroups that are removed and not forgotten. The page cache and dentries that were charged to one keep it until
    the kernel wants their memory back (a charged page holds a reference, mm/memcontrol.c), which is no leak; so they
    go first.
    """
    Path("/proc/sys/vm/drop_caches").write_text("3")
    lines = Path("/sys/fs/cgroup/cgroup.stat").read_text().splitlines()
    return int(dict(map(str.split, lines))["nr_dying_descendants"])


def wait_for(words: str, *streams: Any) -> None:
    """Each of the streams says these words next."""
    for stream in streams:
        assert stream.readline() == f"{words}\n"


def only_report(command: Command) -> Any:
    """The one report; a counter that it lacks fails a comparison, so it need not be looked at before."""
    (report,) = command.reports()
    return report
