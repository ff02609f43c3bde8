"""What this machine offers to the tests."""

import os
import tempfile
from pathlib import Path


def cgroup2_mount() -> Path | None:
    """The first place where cgroup v2 is mounted: its own mount, or `unified` on a hybrid host."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        if kind.split()[0] == "cgroup2":
            return Path(place.split()[4])
    return None


def no_writable_cgroup2() -> str:
    """Why cgroups cannot be made here; an empty string when they can."""
    mount = cgroup2_mount()
    if mount is None:
        return "no cgroup2 is mounted"
    try:
        os.rmdir(tempfile.mkdtemp(prefix="swarmcg-test-", dir=mount))
    except OSError as error:
        return f"cannot make a cgroup in {mount}: {error.strerror}"
    return ""
