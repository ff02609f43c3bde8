"""How long an update of every cpu, memory and pids field of one running bot takes.

    scripts/uml -- python benchmarks/update.py [ROUNDS]

needs a pure cgroup v2 host with the controllers cpu, memory and pids, where it makes a home of its own, a slice with
a process that sleeps, and changes all of its limits back and forth.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from typing import Final

from swarmcg.cgroup.home import find_home
from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.cgroup.slice import Slice
from swarmcg.cgroup.update import update
from swarmcg.resources import Cpu, LinuxResources, Memory, Pids

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


def measured(held: Slice, rounds: int) -> list[float]:
    """Milliseconds of each update; every one of them writes every file."""
    times = []
    for i in range(rounds + 1):
        before = time.perf_counter()
        update([held.path], limits(i % 2))
        times.append((time.perf_counter() - before) * 1e3)
    return times[1:]  # the first one imports


def main() -> None:
    home = find_home(enter=True)
    home.prepare()
    incarnation = new_incarnation()
    intent = {"bot_id": "update", "incarnation": incarnation, "ours": home.ours}
    held = home.create(slice_name("update", incarnation), intent)
    sleeper = subprocess.Popen([shutil.which("sleep") or "sleep", "1000"])
    try:
        with open(f"{held.path}/main/cgroup.procs", "w") as procs:
            procs.write(str(sleeper.pid))
        times = measured(held, int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    finally:
        sleeper.kill()
        sleeper.wait()
        held.remove()
        home.settle()
    median, most = statistics.median(times), max(times)
    p95 = statistics.quantiles(times, n=20)[-1]
    print(f"Linux {os.uname().release}: {len(times)} updates of 11 files, ", end="")
    print(f"median {median:.2f} ms, 95 % under {p95:.2f} ms, at most {most:.2f} ms")


if __name__ == "__main__":
    main()
