"""Killing 1,000 processes until the slice is proven empty, beside the bare cgroup.kill, and a walk of the tree."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import psutil

from benchmarks.measuring import Row
from swarmcg.cgroup.find import find_home
from swarmcg.cgroup.names import new_incarnation
from swarmcg.supervisor.client import Connection
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervised import SupervisedBot

__all__ = ["rows", "survivors"]

PROCESSES = 1000
TURNS = 3
# Half of them daemonize: their parents are gone, so a walk from the first process does not find them.
FOREST = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in range(int(sys.argv[1])):
    if os.fork() == 0:
        if number % 2:
            os.setsid()
            if os.fork():
                os._exit(0)
        time.sleep(600)
        os._exit(0)
for _ in range(int(sys.argv[1]) // 2):
    os.wait()
os.write(1, b"ready")
time.sleep(600)
"""
ARGV = [sys.executable, "-I", "-S", "-c", FOREST, str(PROCESSES)]


def rows() -> Iterator[Row]:
    """The best of a few turns each."""
    ours = min(_ours() for _ in range(TURNS))
    raw = min(_raw() for _ in range(TURNS))
    yield Row(
        f"kill of {PROCESSES} processes until proven empty, reported, removed",
        ours * 1e3,
        raw * 1e3,
        "cgroup.kill until populated 0",
        "1.3",
    )


def _ours() -> float:
    """The main process dies, and what it leaves is killed: the kill alone, without a SIGTERM before it."""
    with _bot() as bot:
        began = time.perf_counter()
        os.kill(bot.pid, signal.SIGKILL)
        bot.wait()
        return time.perf_counter() - began


def survivors() -> tuple[int, int]:
    """How many of the processes outlive psutil's walk of the tree, and how many outlive ours."""
    with _forest() as (process, directory):
        killed = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in killed:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        psutil.wait_procs(killed, timeout=10)
        theirs = len(_pids(directory))
    with _bot() as bot:
        bot.terminate_or_kill(0)
        return theirs, len(_pids(f"{bot.slice}/main"))


def _pids(directory: str) -> list[int]:
    try:
        with open(f"{directory}/cgroup.procs", encoding="ascii") as f:
            return [int(line) for line in f]
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _bot() -> Iterator[SupervisedBot]:
    """A bot with all its processes running."""
    with tempfile.TemporaryDirectory(prefix="swarmcg-bench-") as state:
        connection = Connection(find_home(), f"{state}/reports.jsonl")
        ready, tell = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            launch = Launch(bot_id="bench", grace=0)
            bot = connection.reserve().start(
                launch, ARGV, {"PATH": os.defpath}, cwd="/", stdio=(null, tell, null)
            )
            os.close(tell)
            os.read(ready, 5)
            yield bot
        finally:
            connection.close()
            os.close(ready)
            os.close(null)


def _raw() -> float:
    """Without us: the kernel's own kill of as many processes, until its event says that they are gone."""
    with _forest() as (_, directory):
        return _killed(directory)


@contextlib.contextmanager
def _forest() -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The processes in a bare cgroup, which is emptied and removed afterwards."""
    directory = f"{find_home().hierarchy.mount}/swarmcg-bench-{new_incarnation()}"
    os.mkdir(directory, 0o711)
    join = f'echo 0 >"{directory}/cgroup.procs"; exec "$0" "$@"'
    process = subprocess.Popen(["/bin/sh", "-c", join, *ARGV], stdout=subprocess.PIPE)
    assert process.stdout is not None  # noqa: S101  it was asked for
    try:
        process.stdout.read(5)
        yield process, directory
    finally:
        _killed(directory)
        process.wait()
        process.stdout.close()
        os.rmdir(directory)


def _killed(directory: str) -> float:
    with open(f"{directory}/cgroup.events", encoding="ascii") as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        events.read()
        began = time.perf_counter()
        with open(f"{directory}/cgroup.kill", "w", encoding="ascii") as f:
            f.write("1")
        while True:
            events.seek(0)
            if "populated 0" in events.read():
                return time.perf_counter() - began
            poll.poll(10_000)
