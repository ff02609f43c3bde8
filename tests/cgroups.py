"""Cgroups for tests, with plain files: what a test makes and checks must not be done by the code under test."""

import contextlib
import itertools
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PREFIX: Final = f"swarmcg-test-{os.getpid()}-"
PATIENCE_MS: Final = 60_000
_numbers: Final = itertools.count()


def mount() -> Path | None:
    """Where cgroup v2 is mounted; on a hybrid host this is not /sys/fs/cgroup."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(place.split()[4])
    return None


@contextlib.contextmanager
def fresh(parent: Path) -> Iterator[Path]:
    """A new cgroup below parent. Afterwards it is emptied and removed; what then is in it fails the test."""
    directory = parent / f"{PREFIX}{next(_numbers)}"
    directory.mkdir(0o711)  # as swarmcg makes them: what it has to make in one of mode 0755 has its own test
    try:
        yield directory
    finally:
        left = sorted(f"cgroup {inner}" for inner in below(directory))
        left += sorted(f"process {pid} {name_of(pid)}" for pid in pids(directory))
        remove(directory)
    if left:
        pytest.fail("this test left behind:\n  " + "\n  ".join(left), pytrace=False)


def below(directory: Path) -> list[Path]:
    """All cgroups below this one, innermost first."""
    return [Path(inner) for inner, _, _ in os.walk(directory, topdown=False)][:-1]


def pids(directory: Path) -> list[int]:
    """The processes in this cgroup and below it."""
    places = [*below(directory), directory]
    return [int(pid) for place in places for pid in (place / "cgroup.procs").read_text().split()]


def remove(directory: Path) -> None:
    """Kill what is in it, wait until it is empty, and remove it with all below."""
    for inner in below(directory):
        inner.chmod(0o755)  # a test may have made it unreadable
    (directory / "cgroup.kill").write_text("1")
    wait_until_empty(directory)
    for inner in (*below(directory), directory):
        inner.rmdir()


def wait_until_empty(directory: Path) -> None:
    """Wait for `populated 0`, which the kernel signals on cgroup.events by POLLPRI."""
    with (directory / "cgroup.events").open() as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while "populated 1" in events.read():
            assert poll.poll(PATIENCE_MS), f"{directory} is still populated"
            events.seek(0)


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "(ended meanwhile)"
