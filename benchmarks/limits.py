"""What each limit adds to a start: absolute figures, meant for a guest where limits can be in force."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from benchmarks.measuring import Row, median_ms
from swarmcg import LinuxResources
from swarmcg.cgroup.find import find_home
from swarmcg.supervisor.client import Connection
from swarmcg.supervisor.launch import Launch

__all__ = ["rows"]

ROUNDS = 40
CPU = '"cpu": {"quota": 50000, "period": 100000}'
MEMORY = '"memory": {"limit": 268435456}'
PIDS = '"pids": {"limit": 100}'
LIMITS = {"cpu.max": CPU, "memory.max": MEMORY, "pids.max": PIDS, "all of these": f"{CPU}, {MEMORY}, {PIDS}"}


def rows() -> Iterator[Row]:
    """The time from start to report that each limit adds to a slice without any."""
    home = find_home()
    with contextlib.ExitStack() as held:
        state = held.enter_context(tempfile.TemporaryDirectory(prefix="swarmcg-bench-"))
        null = held.enter_context(open(os.devnull, "rb+")).fileno()
        connection = Connection(home, f"{state}/reports.jsonl")
        held.callback(connection.close)

        def start(resources: LinuxResources | None) -> None:
            launch = Launch(bot_id="bench", resources=resources)
            connection.reserve().start(
                launch, ["/bin/true"], {"PATH": os.defpath}, cwd="/", stdio=(null, null, null)
            ).wait()

        bare = median_ms(lambda: start(None), ROUNDS)
        yield Row("start to report without limits", bare, None, "", "-")
        for name, text in LIMITS.items():
            limited = LinuxResources.from_json(f"{{{text}}}")
            with_it = median_ms(lambda limited=limited: start(limited), ROUNDS)  # type: ignore[misc]  # mypy 1.18 cannot infer a lambda's default
            yield Row(f"{name} adds", with_it - bare, None, "", "-")
