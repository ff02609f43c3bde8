"""How long an update of one running bot takes: of every cpu, memory and pids field where these limits can be in force,
elsewhere of what there is.
"""

import contextlib
import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
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


def core(k: int) -> LinuxResources:
    """Two files that every kernel has, whatever its controllers."""
    return LinuxResources(unified={"cgroup.max.depth": str(5 + k), "cgroup.max.descendants": str(50 + k)})


def rows() -> Iterator[Row]:
    """The time to change files back and forth in a slice with a process that sleeps."""
    home = find_home(enter=True)
    able = home.prepare().controllers >= {"cpu", "memory", "pids"}
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
        yield Row("update of nothing", _took(held.path, lambda _: LinuxResources()), None, "", "-")
        yield Row("update of 2 files of the core", _took(held.path, core), None, "", "-")
        if able:
            what = "update of all 11 files of cpu, memory and pids"
            yield Row(what, _took(held.path, limits), None, "", "< 5 ms")


def _took(path: str, asked: Callable[[int], LinuxResources]) -> float:
    turn = itertools.count()
    return median_ms(lambda: update([path], asked(next(turn) % 2)), ROUNDS)
