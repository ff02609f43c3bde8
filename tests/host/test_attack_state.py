"""Slices whose state, place or processes somebody else changed: they are ended all the same."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from swarmcg.cgroup.names import is_slice_name, new_incarnation, slice_name
from tests.host.engine import SOON_S, Driver, Engine, until

pytestmark = pytest.mark.hostile

MOVED = """
import os, sys, time
place = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
home = sys.argv[1]
main = home + place.partition("/" + os.path.basename(home))[2]
os.mkdir(home + "/elsewhere")
with open(home + "/elsewhere/cgroup.procs", "w") as procs:
    procs.write("0")
if sys.argv[2] == "removed":
    os.rmdir(main)
    os.rmdir(os.path.dirname(main))
print("moved", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("slice_", ["there", "removed"])
def test_a_main_process_that_left_its_slice_is_killed_all_the_same(
    home: Path, tmp_path: Path, slice_: str
) -> None:
    with Engine(home, tmp_path) as engine:
        bot = engine.start(sys.executable, "-c", MOVED, str(home), slice_, ready=True)
        bot.terminate(0)
        assert bot.wait(SOON_S).signal == 9
    os.rmdir(home / "elsewhere")


NESTED = """
import os, signal, time
place = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
os.chdir(os.environ["MOUNT"] + place)
for _ in range(20):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open("cgroup.procs", "w") as procs:
        procs.write("0")
    print("nested", flush=True)
time.sleep(1000)
"""


def test_cgroups_nested_deeper_than_a_path_can_say_are_ended_and_removed(home: Path, tmp_path: Path) -> None:
    with Engine(home, tmp_path) as engine:
        bot = engine.start(sys.executable, "-c", NESTED, ready=True, env={"MOUNT": str(home.parent)})
        bot.terminate(0)
        assert bot.wait(SOON_S).leftovers.count in {1, 2}
        assert bot.trouble is None
        assert not os.path.exists(bot.slice)


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("name", ["running", "exit", "intent"])
@pytest.mark.parametrize(
    "garbage", [b"[]", b"[" * 60_000, b'{"pid": "x"}', b'{"pid": -1, "start_time": 0, "at": 1e300}', b"{"]
)
def test_a_slice_with_garbled_state_is_taken_over_and_removed(
    home: Path, tmp_path: Path, name: str, garbage: bytes
) -> None:
    with Engine(home, tmp_path) as engine:
        bot = engine.start("/bin/sleep", "1000")
        os.setxattr(bot.slice, f"trusted.swarmcg.{name}", garbage)
        keeper, supervisor = engine.keeper, engine.supervisor
        supervisor.suspend()
        keeper.kill()
        supervisor.kill()
        # Each of them holds the slice's lock until it is gone altogether.
        until(lambda: gone(keeper) and gone(supervisor))
        driver = Driver(home, tmp_path, in_process=True)
        for held in driver.supervisor.home.ownerless():
            adopted = driver.supervisor.adopt(held, driver)
            if adopted is not None:
                adopted.stop(0)
        driver.turn_until(lambda: not driver.supervisor.bots)
        driver.supervisor.close()
        until(lambda: not os.path.exists(bot.slice))


def test_a_probe_that_was_cut_short_is_found_as_an_ownerless_slice(home: Path) -> None:
    assert is_slice_name(slice_name("probe", new_incarnation()))
    seen: list[str] = []
    driver = Driver(home, home)
    listdir = os.listdir

    def noting(path: str) -> list[str]:
        seen.append(str(path))
        return listdir(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", noting)
        driver.supervisor.home.prepare()
    driver.supervisor.close()
    probes = [path for path in seen if os.path.basename(path).startswith("probe.")]
    assert probes
    assert all(is_slice_name(os.path.basename(path)) for path in probes)
