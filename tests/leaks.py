"""A pytest plugin: after each test, nothing may be there that was not there before it.

It compares descriptors, threads, processes, cgroups and mounts. What is about to end gets a short while for it.
"""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import cgroups

PATIENCE: Final = float(os.environ.get("SWARMCG_TEST_PATIENCE", "20"))
LOOK_EVERY: Final = 0.01
EXEC_LOOKS: Final = 5
# In a guest of our own everything that appears was made by the test. Elsewhere others are at work too.
ALONE: Final = "SWARMCG_TEST_GUEST" in os.environ
# A process that was orphaned is known by what it inherited, as long as it keeps its environment.
MARK: Final = f"SWARMCG_TEST_RUN={uuid.uuid4()}"

Thing = tuple[str, str]
"""What identifies a thing: its kind, and a name that is not used again for another thing soon."""


def pytest_configure() -> None:
    name, _, value = MARK.partition("=")
    os.environ[name] = value


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fail the test when something that it made outlives it."""
    older, before = all_pids(), look().keys()
    yield
    deadline = time.monotonic() + PATIENCE
    while (now := look() | processes(older)).keys() - before and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)  # five kinds of things have no event in common to wait for
    if left := sorted(text for thing, text in now.items() if thing not in before):
        pytest.fail("this test left behind:\n  " + "\n  ".join(left), pytrace=False)


def look() -> dict[Thing, str]:
    """All that could leak, processes apart, with a description of each."""
    return descriptors() | threads() | groups() | mounts()


def descriptors() -> dict[Thing, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the listing's own
            continue
        found["descriptor", f"{number} {target}"] = f"descriptor {number} -> {target}"
    return found


def threads() -> dict[Thing, str]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    return {("thread", str(task)): f"thread {task} {names.get(task, '(not of Python)')}" for task in tasks}


def all_pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def processes(older: set[int]) -> dict[Thing, str]:
    """Descendants, zombies among them, and orphans that carry our mark; in a guest all but the kernel's own.

    Only processes that are not among the older ones: to look at each of a machine takes tens of milliseconds.
    """
    newer = {pid: stat for pid in all_pids() - older if (stat := read_stat(pid))}
    ours = {os.getpid()}
    for pid in sorted(newer, key=lambda pid: int(newer[pid][START])):  # parents before their children
        parent = int(newer[pid][PARENT])
        if parent in ours or (ALONE and parent != KTHREADD) or is_marked(pid):
            ours.add(pid)
    return {
        ("process", f"{pid} {stat[START]}"): f"process {pid} {stat[STATE]} {command_line(pid)}"
        for pid, stat in newer.items()
        if pid in ours
    }


# Positions in /proc/PID/stat after the command's name, which may itself hold blanks and parentheses (proc(5)).
STATE: Final = 0
PARENT: Final = 1
START: Final = 19
KTHREADD: Final = 2


def read_stat(pid: int) -> list[str]:
    try:
        # In bytes: a process may give itself a name in no encoding, also one of a test that runs beside this one.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def is_marked(pid: int) -> bool:
    """Whether the process inherited our mark. In the middle of an exec the environment reads as empty for a moment."""
    with contextlib.suppress(OSError):
        for _ in range(EXEC_LOOKS):
            if environment := Path(f"/proc/{pid}/environ").read_bytes():
                return MARK.encode() in environment.split(b"\0")
            time.sleep(LOOK_EVERY / EXEC_LOOKS)
    return False


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "(ended meanwhile)"


def groups() -> dict[Thing, str]:
    mount = cgroups.mount()
    tops = [] if mount is None else [top for top in mount.iterdir() if top.is_dir() and is_tests(top)]
    return {("cgroup", path): f"cgroup {path}" for top in tops for path, _, _ in os.walk(top)}


def is_tests(top: Path) -> bool:
    return ALONE or top.name.startswith(cgroups.PREFIX)


def mounts() -> dict[Thing, str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {("mount", line.split()[0]): f"mount {line.split()[4]}" for line in lines}
