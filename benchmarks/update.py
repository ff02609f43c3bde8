"""How long an update of every cpu, memory and pids field of one running bot takes: in a guest where these limits can
be in force.
"""

import contextlib
import itertools
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

from benchmarks.measuring import Row, median_ms
from swarmcg.cgroup.home import find_home
from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.cgroup.update import update
from swarmcg.resources import Cpu, LinuxResources, Memory, Pids

__all__ = ["rows"]

ROUNDS: Final = 200
MB: Final = 1 << 20


def limits(k: int) -> LinuxResources:
    """All that has a file of these controllers, in values of its own for each k."""
    return LinuxResources(
        cpu=Cpu(shares=1024 + k, quota=50_000 + k, period=100_000 + k, burst=1000 + k),
        memory=Memory(limit=(64 + k) * MB, swap=(128 + k) * MB, reservation=(16 + k) * MB),
        pids=Pids(limit=100 + k),
        unified={
            "memory.high": str((48 + k) * MB),
            "memory.min": str((8 + k) * MB),
            "memory.oom.group": str(k),
        },
    )


def rows() -> Iterator[Row]:
    """The time to change 11 files back and forth in a slice with a process that sleeps."""
    home = find_home(enter=True)
    home.prepare()
    with contextlib.ExitStack() as left:
        left.callback(home.settle)
        incarnation = new_incarnation()
        intent = {"bot_id": "update", "incarnation": incarnation, "ours": home.ours}
        held = home.create(slice_name("update", incarnation), intent)
        left.callback(held.remove)
        sleeper = subprocess.Popen([shutil.which("sleep") or "sleep", "1000"])
        left.callback(sleeper.wait)
        left.callback(sleeper.kill)
        with open(f"{held.path}/main/cgroup.procs", "w") as procs:
            procs.write(str(sleeper.pid))
        turn = itertools.count()
        took = median_ms(lambda: update([held.path], limits(next(turn) % 2)), ROUNDS)
        yield Row("update of every cpu, memory and pids field", took, None, "", "< 5 ms")
