"""From the order to start /bin/true in a slice without limits until its exit report, beside Popen and wait."""

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator

from benchmarks.measuring import Row, best, median_ms
from swarmcg.cgroup.find import find_home
from swarmcg.supervisor.client import Connection
from swarmcg.supervisor.launch import Launch

__all__ = ["rows"]

COMMAND = ["/bin/true"]
ROUNDS = 100
FEW = 30
BALLAST_BYTES = 500 << 20
BUSY_THREADS = 8


def rows() -> Iterator[Row]:
    """The figures: in an idle program, in one of 500 MB, and in one with eight busy threads."""
    with _starter("/dev/shm") as start, _starter(None) as start_on_disk:  # noqa: S108  a directory of our own in it
        ours, theirs = best(start, _popen, rounds=ROUNDS)
        yield Row("start to report of /bin/true, no limits", ours, theirs, "Popen + wait", "2.5")
        yield Row(
            "the same, report on a disk (fsync)",
            median_ms(start_on_disk, ROUNDS),
            ours,
            "the line above",
            "-",
        )
        ballast = bytearray(b"x") * BALLAST_BYTES
        yield Row("with 500 MB in the parent", median_ms(start, ROUNDS), ours, "the idle figure", "1.2")
        del ballast
        with _busy():
            ours, theirs = best(start, _popen, rounds=FEW, turns=3)
        yield Row("with 8 busy threads", ours, theirs, "Popen + wait, with them", "2.5")


def _popen() -> None:
    subprocess.Popen(COMMAND).wait()


class _Start:
    def __init__(self, connection: Connection, null: int) -> None:
        self._connection, self._null = connection, null

    def __call__(self) -> None:
        stdio = (self._null, self._null, self._null)
        launch = Launch(bot_id="bench")
        bot = self._connection.reserve().start(launch, COMMAND, {"PATH": os.defpath}, cwd="/", stdio=stdio)
        bot.wait()


@contextlib.contextmanager
def _starter(place: str | None) -> Iterator[_Start]:
    """Starts by a supervisor of its own, whose reports are kept below ``place``."""
    with (
        tempfile.TemporaryDirectory(prefix="swarmcg-bench-", dir=place) as state,
        open(os.devnull, "rb+") as null,
    ):
        connection = Connection(find_home(), f"{state}/reports.jsonl")
        try:
            yield _Start(connection, null.fileno())
        finally:
            connection.close()


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Threads that want the interpreter all the time."""
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=spin) for _ in range(BUSY_THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
