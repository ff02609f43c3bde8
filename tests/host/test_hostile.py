"""Bots that do not want to go: each is gone at the end of its grace, and the report says what was killed."""

import os
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from swarmcg.cgroup.slice import Slice
from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.launch import Launch
from tests.host.engine import (
    ENV,
    SOON_S,
    Driver,
    Engine,
    compiled,
    in_slice,
    marked,
    read_line,
    reports,
    said,
    slices,
)

pytestmark = pytest.mark.hostile

GRACE_S: Final = 0.2
OWN_GROUP: Final = (
    "own=$(grep ^0:: /proc/self/cgroup | cut -d: -f3); "
    "cd $(awk '$3 == \"cgroup2\" {print $2; exit}' /proc/mounts)$own"
)
DEAF: Final = "trap '' TERM; while :; do sleep 1000; done"

SCRIPTS: Final = {
    "ignores SIGTERM": f"trap '' TERM; echo ready; {DEAF}",
    "double fork": f"(({DEAF}) & ) ; trap '' TERM; echo ready; {DEAF}",
    "setsid": f'setsid sh -c "{DEAF}" & setsid -f sh -c "{DEAF}"; trap \'\' TERM; echo ready; {DEAF}',
    "stops itself": "trap '' TERM; echo ready; while :; do kill -STOP $$; done",
    "stops its children": "sleep 1000 & kill -STOP $!; trap '' TERM; echo ready; wait; wait; sleep 1000",
    "cgroups of its own": f"{OWN_GROUP}; mkdir -p a/b/c; echo 0 >a/b/c/cgroup.procs; trap '' TERM; echo ready; {DEAF}",
    "freezes itself": f"{OWN_GROUP}; mkdir sub; sh -c 'echo $$ >sub/cgroup.procs; exec sleep 1000' & "
    f"while ! grep -q . sub/cgroup.procs; do :; done; echo 1 >sub/cgroup.freeze; trap '' TERM; echo ready; {DEAF}",
    "takes rights away": f"{OWN_GROUP}; mkdir -p sub/sub; echo 0 >sub/cgroup.procs; chmod 0 sub sub/sub sub/cgroup.*; "
    f"trap '' TERM; echo ready; {DEAF}",
    "threaded cgroup": f"{OWN_GROUP}; mkdir sub; echo threaded >sub/cgroup.type; trap '' TERM; echo ready; {DEAF}",
}
PROGRAMS: Final = {"storm": "100", "threads": "50"}
ODD_NAME: Final = r"""
import ctypes, os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)
os.write(1, b"ready\n")
while True:
    signal.pause()
"""


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    def find(name: str) -> list[str]:
        if name in SCRIPTS:
            return ["/bin/sh", "-c", SCRIPTS[name]]
        path = compiled(name, tmp_path_factory.getbasetemp())
        if path is None:
            pytest.skip("there is no C compiler")
        return [path, PROGRAMS[name]]

    return find


@pytest.mark.parametrize("name", [*SCRIPTS, *PROGRAMS])
def test_it_is_gone_after_its_grace(
    engine: Engine, home: Path, name: str, program: Callable[[str], list[str]]
) -> None:
    mark = secrets.token_hex(8)
    bot = engine.start(*program(name), ready=True, env=ENV | {"SWARMCG_MARK": mark})
    assert all(in_slice(where, bot.slice) for where in marked(mark).values())
    bot.terminate_or_kill(GRACE_S)
    assert marked(mark) == {}
    assert slices(home) == []
    report = bot.wait()
    assert report.reason == "killed-after-grace"
    assert report.signal == 9
    assert report.leftovers.count >= 1
    assert report.leftovers.names
    assert engine.reports() == [report]


STORM_OF_CGROUPS: Final = """
import contextlib, os
own = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
mount = next(line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "cgroup2")
child = os.fork()
if child:
    print("ready", flush=True)
paths = [f"{mount}{own}/{bool(child)}-{i}" for i in range(100)]
while True:
    for act in (os.mkdir, os.rmdir):
        for path in paths:
            with contextlib.suppress(OSError):
                act(path)
"""


def test_who_makes_and_removes_cgroups_all_the_time_keeps_nobody_from_a_report(
    home: Path, tmp_path: Path
) -> None:
    for _ in range(5):
        with Engine(home, tmp_path) as engine:
            for k in range(3):
                engine.start("sleep", "1000", bot_id=f"quiet-{k}", grace=1)
                engine.start(
                    sys.executable, "-c", STORM_OF_CGROUPS, bot_id=f"storm-{k}", ready=True, grace=0.05
                )
            engine.connection.close(SOON_S)
            assert engine.connection._process.returncode == 0
    reasons = Counter(report.reason for report in reports(tmp_path / "reports.jsonl"))
    assert (reasons["terminated"], reasons.total()) == (30, 30)


def test_threads_count_as_the_one_process_that_they_are(
    engine: Engine, program: Callable[[str], list[str]]
) -> None:
    bot = engine.start(*program("threads"), ready=True)
    bot.terminate_or_kill(0)
    assert bot.wait().leftovers.count == 1  # fifty threads are one process
    assert bot.wait().leftovers.names == ("threads",)


@pytest.mark.parametrize("name", [*SCRIPTS, *PROGRAMS])
def test_it_is_gone_also_where_the_kernel_cannot_kill_a_cgroup(
    home: Path,
    tmp_path: Path,
    name: str,
    program: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Slice, "can_kill", lambda _: False)
    monkeypatch.setattr(Slice, "kill", lambda _: pytest.fail("there is no cgroup.kill here"))
    mark = secrets.token_hex(8)
    driver = Driver(home, tmp_path, in_process=True)
    try:
        with said() as (hear, tell), open(os.devnull, "rb") as null:
            order = Order(
                program(name), ENV | {"SWARMCG_MARK": mark}, procs=-1, cwd="/", stdio=(null.fileno(), tell, 2)
            )
            bot = driver.supervisor.start(Launch(bot_id="bot"), order, driver)
            driver.turn_until(lambda: driver.began)
            read_line(hear)
        bot.stop(GRACE_S)
        driver.turn_until(lambda: driver.ends)
    finally:
        driver.supervisor.close()
    (report, trouble), *_ = driver.ends
    assert trouble is None
    assert report.reason == "killed-after-grace"
    assert report.leftovers.count >= 1
    assert marked(mark) == {}
    assert slices(home) == []


def test_strays_of_a_bot_that_ended_are_killed_at_once_and_named(engine: Engine, home: Path) -> None:
    bot = engine.sh(f'setsid sh -c "{DEAF}" & sleep 1000 & echo ready; exit 3', grace=1000)
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code) == ("exited", 3)
    assert report.leftovers.count >= 2
    assert set(report.leftovers.names) <= {
        "sh",
        "setsid",
        "sleep",
    }  # some may not have got to their last exec
    assert report.leftovers.names
    assert slices(home) == []


@pytest.mark.parametrize(
    "comm", [b"a\nb", b") R 1 (", b"\xff\xfe\xfd", b"\x1b[31mred", b"", b" ", b"x" * 15], ids=repr
)
def test_a_name_of_odd_bytes_breaks_nothing(engine: Engine, home: Path, comm: bytes) -> None:
    bot = engine.start(sys.executable, "-I", "-S", "-c", ODD_NAME.format(name=comm), ready=True)
    bot.terminate_or_kill(0)
    report = bot.wait()
    assert (report.reason, report.leftovers.count) == ("killed-after-grace", 1)
    assert engine.reports() == [report]
    assert all(name.isprintable() for name in report.leftovers.names), report.leftovers.names
    assert slices(home) == []


def test_a_bot_that_ends_while_its_grace_runs_is_not_killed(engine: Engine) -> None:
    bot = engine.sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    bot.terminate_or_kill(SOON_S)
    report = bot.wait()
    assert (report.reason, report.exit_code, report.leftovers.count) == ("terminated", 7, 0)


def test_sigterm_reaches_every_process_of_the_slice(engine: Engine) -> None:
    child = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"
    script = (
        f'for i in 1 2 3; do setsid sh -c "{child}" & done | (read a; read a; read a; echo ready) & '
        "trap 'exit 5' TERM; while :; do sleep 0.05; done"
    )
    bot = engine.sh(script)
    bot.terminate_or_kill(SOON_S)
    assert bot.wait().reason == "terminated"
    assert bot.wait().leftovers.count == 0
