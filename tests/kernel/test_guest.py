"""The guest is what the other tests of this tier take it for. Plain files only."""

import os
import signal
import subprocess
import sys
from pathlib import Path

EAT_64_MB = "bytearray(b'x') * (64 << 20)"


def python_in(cgroup: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that enters the cgroup before anything else."""
    enter = f"open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0')"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{enter}\n{program}"], check=False, capture_output=True, text=True
    )


def counter(file: Path, name: str) -> int:
    return int(dict(line.split() for line in file.read_text().splitlines())[name])


def child_of(home: Path, name: str = "child") -> Path:
    child = home / name
    child.mkdir()
    return child


def test_the_hierarchy_is_pure_v2_with_its_controllers() -> None:
    assert {"cpu", "io", "memory", "pids"} <= set(
        Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    )
    assert [line.split(":")[:2] for line in Path("/proc/self/cgroup").read_text().splitlines()] == [["0", ""]]


def test_memory_max_kills_who_goes_over_it(home: Path) -> None:
    child = child_of(home)
    (child / "memory.max").write_text(str(32 << 20))
    (child / "memory.swap.max").write_text("0")
    ended = python_in(child, EAT_64_MB)
    assert ended.returncode == -signal.SIGKILL
    assert counter(child / "memory.events", "oom_kill") == 1
    child.rmdir()


def test_with_swap_the_same_program_lives(home: Path) -> None:
    child = child_of(home)
    (child / "memory.max").write_text(str(48 << 20))
    ended = python_in(child, EAT_64_MB)
    assert ended.returncode == 0
    assert counter(child / "memory.events", "oom_kill") == 0
    child.rmdir()


def test_pids_max_refuses_a_fork(home: Path) -> None:
    child = child_of(home)
    (child / "pids.max").write_text("1")
    ended = python_in(child, "import os; os.fork()")
    assert "BlockingIOError" in ended.stderr
    assert counter(child / "pids.events", "max") == 1
    child.rmdir()


def test_cpu_max_throttles(home: Path) -> None:
    child = child_of(home)
    (child / "cpu.max").write_text("10000 100000")
    python_in(child, "import time\nwhile time.process_time() < 0.3: pass")
    assert counter(child / "cpu.stat", "nr_throttled") > 0
    child.rmdir()


def test_the_scratch_disk_is_a_whole_disk_that_io_max_takes(home: Path, scratch_disk: Path) -> None:
    child = child_of(home)
    number = os.stat(scratch_disk).st_rdev
    limit = f"{os.major(number)}:{os.minor(number)} wbps=1048576"
    (child / "io.max").write_text(limit)
    assert set(limit.split()) <= set((child / "io.max").read_text().split())
    child.rmdir()
