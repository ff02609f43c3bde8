"""What every kernel with cgroup v2 does with a cgroup as a whole.

A module of tests/contract is run by each tier that offers its fixtures (here: `home`), by
`from tests.contract.whole_cgroups import *` in a test module of that tier.
"""

import os
import select
import signal
import subprocess
from pathlib import Path

__all__ = ["test_a_cgroup_is_killed_as_a_whole", "test_a_frozen_cgroup_dies_too"]


def child_with_sleeper(home: Path) -> tuple[Path, "subprocess.Popen[bytes]"]:
    child = home / "child"
    child.mkdir()
    sleeper = subprocess.Popen(["sleep", "1000"])
    (child / "cgroup.procs").write_text(str(sleeper.pid))
    return child, sleeper


def test_a_cgroup_is_killed_as_a_whole(home: Path) -> None:
    child, sleeper = child_with_sleeper(home)
    (child / "cgroup.kill").write_text("1")
    assert sleeper.wait() == -signal.SIGKILL
    child.rmdir()


def test_a_frozen_cgroup_dies_too(home: Path) -> None:
    child, sleeper = child_with_sleeper(home)
    pidfd = os.pidfd_open(sleeper.pid)
    (child / "cgroup.freeze").write_text("1")
    assert not select.select([pidfd], [], [], 0)[0]
    (child / "cgroup.kill").write_text("1")
    assert sleeper.wait() == -signal.SIGKILL
    os.close(pidfd)
    child.rmdir()
