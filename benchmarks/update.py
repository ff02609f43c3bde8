"""How long an update of one running bot takes: of every cpu, memory and pids field, and of the device rules.

Beside it stands the bare write of each file that changes. Where these limits cannot be in force, plain files take the
place of the kernel's.
"""

import contextlib
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks.measuring import Row, best, median_ms
from benchmarks.plain import FILES as LIMITS, slice_of_files
from swarmcg.cgroup.files import write_line
from swarmcg.cgroup.find import find_home
from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.cgroup.update import update
from swarmcg.resources import Cpu, LinuxResources, Memory, Pids

__all__ = ["rows"]

ROUNDS: Final = 200
TURNS: Final = 3
FILES: Final = (*LIMITS.keys() - {"memory.current"}, "cgroup.max.depth", "cgroup.max.descendants")
ALL: Final = "update of all 11 files of cpu, memory and pids"
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


def devices(k: int) -> LinuxResources:
    """All but one device; another one for each k."""
    one = {"allow": False, "type": "c", "major": 10, "minor": 200 + k, "access": "rwm"}
    return LinuxResources.from_json(json.dumps({"devices": [{"allow": True, "access": "rwm"}, one]}))


def rows() -> Iterator[Row]:
    """The time to change things back and forth in a slice with a process that sleeps."""
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
        yield _beside("update of 2 files of the core", held.path, core, "-")
        yield Row("update of the device rules", _took(held.path, devices), None, "", "< 10 ms")
        if able:
            yield _beside(ALL, held.path, limits, "< 5 ms")
            return
    with slice_of_files() as path:
        yield _beside(f"{ALL}, plain files in their place", path, limits, "< 5 ms")


def _beside(what: str, path: str, asked: Callable[[int], LinuxResources], aim: str) -> Row:
    """The update beside bare writes to the files that it changes."""
    turn = itertools.count()
    states = [_after(path, asked(k)) for k in range(2)]
    changed = [file for file in states[0] if states[0][file] != states[1][file]]

    def ours() -> None:
        update([path], asked(next(turn) % 2))

    def theirs() -> None:
        k = next(turn) % 2
        for file in changed:
            write_line(f"{path}/{file}", states[k][file])

    took = best(ours, theirs, rounds=ROUNDS, turns=TURNS)
    return Row(what, *took, f"open, write, close of the {len(changed)} that change", aim)


def _after(path: str, asked: LinuxResources) -> dict[str, str]:
    """The files that an update may have changed, as it leaves them."""
    update([path], asked)
    return {file: Path(path, file).read_text().strip() for file in FILES if Path(path, file).exists()}


def _took(path: str, asked: Callable[[int], LinuxResources]) -> float:
    turn = itertools.count()
    return median_ms(lambda: update([path], asked(next(turn) % 2)), ROUNDS)
