"""memory.low and memory.min really protect: the directories above a slice have as much, whoever changes what."""

import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from swarmcg.errors import UnenforceableError
from swarmcg.resources import LinuxResources, Memory
from swarmcg.supervisor.supervised import SupervisedBot
from tests.host.engine import SOON_S, Engine, until

MB: Final = 1 << 20
HELD: Final = 20 * MB
HOLD: Final = f"b = bytearray(b'x') * {HELD}; print('ready', flush=True); import time; time.sleep(1000)"
HOG: Final = f"""
b = bytearray(b'x') * {40 * MB}
for i in range(0, len(b), 4096):
    b[i] = 1
print('ready', flush=True)
"""


@pytest.fixture
def ours(home: Path) -> Path:
    """A home of swarmcg's own, below a cgroup that grants whatever is asked for."""
    for name in ("memory.low", "memory.min"):
        (home / name).write_text("max")
    return home / "ours"


@pytest.fixture
def engine(ours: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(ours, tmp_path) as engine:
        yield engine


def holder(engine: Engine, **launch: Any) -> SupervisedBot:
    """A bot that has 20 MB and does nothing with them."""
    return engine.start(sys.executable, "-I", "-S", "-c", HOLD, ready=True, **launch)


def low(size: int) -> LinuxResources:
    return LinuxResources(memory=Memory(reservation=size))


def kept_under_pressure(home: Path, bot: SupervisedBot) -> int:
    """What the bot has left of its memory when a neighbour needed 40 MB in a place of 50."""
    hog = home / "hog"
    hog.mkdir()
    (home / "memory.max").write_text(str(50 * MB))
    script = f"echo $$ > {hog}/cgroup.procs; exec {sys.executable} -I -S -c {shlex.quote(HOG)}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=False, timeout=SOON_S)
    assert done.stdout == b"ready\n"
    kept = int(Path(bot.slice, "memory.current").read_text())
    (home / "memory.max").write_text("max")
    until(lambda: "populated 0" in (hog / "cgroup.events").read_text())
    hog.rmdir()
    return kept


def test_without_a_reservation_the_neighbour_gets_the_memory(home: Path, engine: Engine) -> None:
    """Or the tests below would show nothing."""
    assert kept_under_pressure(home, holder(engine)) < 0.8 * HELD


@pytest.mark.parametrize(("name", "late"), [("memory.low", False), ("memory.min", True)])
def test_what_is_reserved_stays(home: Path, engine: Engine, name: str, late: bool) -> None:
    reserved = LinuxResources(unified={name: str(32 * MB)})
    bot = holder(engine, resources=None if late else reserved)
    if late:
        bot.update(reserved)
    assert kept_under_pressure(home, bot) > 0.95 * HELD


def test_what_the_directory_above_does_not_have_is_not_protected(
    home: Path, ours: Path, engine: Engine
) -> None:
    """Which is why the home is kept at the sum of its slices; this is what happens when it is not."""
    bot = holder(engine, resources=low(32 * MB))
    (ours / "memory.low").write_text("0")
    assert kept_under_pressure(home, bot) < 0.8 * HELD


def test_main_is_protected_also_when_a_bot_gives_it_the_memory_controller(home: Path, engine: Engine) -> None:
    """Then the processes are charged to main, and not to the slice."""
    empty = engine.start("sleep", "1000")
    Path(empty.slice, "cgroup.subtree_control").write_text("+memory")
    empty.update(low(32 * MB))
    script = f"echo $$ > {empty.slice}/main/cgroup.procs; exec {sys.executable} -I -S -c {shlex.quote(HOLD)}"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as late:
        try:
            assert late.stdout is not None
            assert late.stdout.readline() == b"ready\n"
            assert Path(empty.slice, "main", "memory.low").read_text() == f"{32 * MB}\n"
            assert kept_under_pressure(home, empty) > 0.95 * HELD
        finally:
            late.kill()


def test_the_home_has_the_sum_of_its_slices_at_any_time(ours: Path, engine: Engine) -> None:
    bots = [engine.start("sleep", "1000", resources=low((k + 1) * MB)) for k in range(3)]
    assert (ours / "memory.low").read_text() == f"{6 * MB}\n"
    bots[0].update(low(5 * MB))
    assert (ours / "memory.low").read_text() == f"{10 * MB}\n"
    bots[1].update(LinuxResources(unified={"memory.low": "0", "memory.min": "7M"}))
    assert (ours / "memory.low").read_text() == f"{8 * MB}\n"
    assert (ours / "memory.min").read_text() == f"{7 * MB}\n"
    bots[2].update(low(-1))
    assert (ours / "memory.low").read_text() == "max\n"
    bots[2].terminate_or_kill(0)
    until(lambda: (ours / "memory.low").read_text() == f"{5 * MB}\n")  # tidied up a tenth of a second later
    with pytest.raises(Exception, match="Invalid"):
        bots[1].update(LinuxResources(unified={"memory.low": "9M", "memory.high": "nonsense"}))
    assert (ours / "memory.low").read_text() == f"{5 * MB}\n"


def test_many_who_change_different_slices_leave_the_home_at_the_sum(ours: Path, engine: Engine) -> None:
    bots = [engine.start("sleep", "1000") for _ in range(4)]

    def change(k: int) -> None:
        for size in (1, 9, 3, 7, k + 1):
            bots[k].update(low(size * MB))

    threads = [threading.Thread(target=change, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert (ours / "memory.low").read_text() == f"{(1 + 2 + 3 + 4) * MB}\n"


def test_another_s_home_grants_what_it_has_left(home: Path, tmp_path: Path) -> None:
    (home / "memory.low").write_text(str(32 * MB))
    with Engine(home, tmp_path) as engine:
        one = engine.start("sleep", "1000", resources=low(20 * MB))
        two = engine.start("sleep", "1000")
        with pytest.raises(UnenforceableError, match=f"{12 * MB} bytes"):
            two.update(low(13 * MB))
        two.update(low(12 * MB))
        one.update(low(20 * MB))  # what it has itself does not count against it
        with pytest.raises(UnenforceableError):
            engine.start("sleep", "1000", resources=low(4096))
    assert (home / "memory.low").read_text() == f"{32 * MB}\n"
