"""Slices whose state, place or processes somebody else changed: they are ended all the same."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from swarmcg.cgroup.names import is_slice_name, new_incarnation, slice_name
from swarmcg.errors import UpdateError
from swarmcg.resources import LinuxResources
from swarmcg.supervisor.supervised import SupervisedBot
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
        taken_over_and_removed(engine, home, tmp_path, bot)


def taken_over_and_removed(engine: Engine, home: Path, state: Path, bot: SupervisedBot) -> None:
    keeper, supervisor = engine.keeper, engine.supervisor
    supervisor.suspend()
    keeper.kill()
    supervisor.kill()
    # Each of them holds the slice's lock until it is gone altogether.
    until(lambda: gone(keeper) and gone(supervisor))
    driver = Driver(home, state, in_process=True)
    for held in driver.supervisor.home.ownerless():
        adopted = driver.supervisor.adopt(held, driver)
        if adopted is not None:
            adopted.stop(0)
    driver.turn_until(lambda: not driver.supervisor.bots)
    driver.supervisor.close()
    until(lambda: not os.path.exists(bot.slice))


def recorded(place: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(os.getxattr(place, f"trusted.swarmcg.{name}"))
    return found


def garble(place: str, name: str, value: dict[str, Any]) -> None:
    os.setxattr(place, f"trusted.swarmcg.{name}", json.dumps(value).encode())


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("running", "at", 1e12),
        ("running", "at", -1),
        ("running", "pid", -1),
        ("running", "start_time", -1),
        ("intent", "created", float("inf")),
        ("intent", "created", float("nan")),
        ("intent", "grace", -1),
        ("intent", "grace", float("inf")),
        ("intent", "incarnation", "0123456789abcdef"),
        ("intent", "bot_id", "another"),
        ("intent", "limits", {"../../cgroup.procs": "x"}),
        ("intent", "limits", {"cgroup.max.depth ": "\ud800"}),
        ("intent", "bot_id", "\ud800"),
        ("intent", "limits", {"a\0b": "x"}),
        ("intent", "journal", "/a\0b"),
        ("intent", "drain_file", "/a\0b"),
        ("intent", "report_file", "/a\0b"),
    ],
)
def test_a_slice_with_one_thing_garbled_is_taken_over_and_removed(
    home: Path, tmp_path: Path, name: str, key: str, value: object
) -> None:
    with Engine(home, tmp_path) as engine:
        bot = engine.start("/bin/sleep", "1000")
        garble(bot.slice, name, recorded(bot.slice, name) | {key: value})
        taken_over_and_removed(engine, home, tmp_path, bot)


@pytest.mark.parametrize("named", ["evil.0123456789abcdef", "as the victim", "as itself"])
def test_an_inner_slice_that_calls_itself_as_another_bot_takes_nothing_from_it(
    home: Path, tmp_path: Path, named: str
) -> None:
    with Engine(home, tmp_path) as engine:
        victim = engine.start("/bin/sleep", "1000", bot_id="victim")
        hostile = engine.start("/bin/sleep", "1000", bot_id="hostile")
        whose = hostile if named == "as itself" else victim
        inner = f"{hostile.slice}/swarmcg/{os.path.basename(whose.slice) if ' ' in named else named}"
        os.makedirs(f"{inner}/main")
        garble(inner, "intent", recorded(whose.slice, "intent"))
        garble(inner, "running", recorded(whose.slice, "running") | {"at": 1e12})
        hostile.terminate(0)
        assert hostile.wait(SOON_S).bot_id == "hostile"
        victim.terminate(0)
        assert victim.wait(SOON_S).bot_id == "victim"
        assert not os.path.exists(hostile.slice)
        assert not os.path.exists(victim.slice)


def test_a_recorded_limit_is_read_from_the_slice_s_own_files_alone(home: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with Engine(home, tmp_path) as engine:
        bot = engine.start("/bin/sleep", "1000")
        garble(bot.slice, "limits", {"limits": {os.path.relpath(secret, bot.slice): "x"}})
        bot.terminate(0)
        assert bot.wait(SOON_S).limits == {}


def test_a_recorded_limit_that_is_no_text_keeps_no_report_from_being_written(
    home: Path, tmp_path: Path
) -> None:
    with Engine(home, tmp_path) as engine:
        bot = engine.start("/bin/sleep", "1000")
        garble(bot.slice, "limits", {"limits": {"cgroup.nothing": "\ud800"}})
        bot.terminate(0)
        assert bot.wait(SOON_S).limits == {}


def test_a_killed_update_that_never_was_writes_no_other_file(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("as it was")
    with Engine(home, tmp_path) as engine:
        bot = engine.start("/bin/sleep", "1000")
        garble(bot.slice, "updating", {"undo": [[os.path.relpath(file, bot.slice), "owned"]]})
        bot.update(LinuxResources(unified={"cgroup.max.depth": "7"}))
        assert Path(bot.slice, "cgroup.max.depth").read_text() == "7\n"
    assert file.read_text() == "as it was"


@pytest.mark.parametrize(
    "rules",
    [
        {"markings": [{"priority": 1 << 32}], "limits": {"network.classID": "x"}},
        {"markings": [{"priority": 5, "interface": "\ud800"}], "limits": {"network.priorities[0]": "x"}},
    ],
)
def test_packet_rules_that_nobody_kept_keep_no_update_from_being_made(
    home: Path, tmp_path: Path, rules: dict[str, Any]
) -> None:
    with Engine(home, tmp_path) as engine:
        bot = engine.start("/bin/sleep", "1000")
        garble(bot.slice, "updating", {"undo": [], "packets": [rules]})
        bot.update(LinuxResources(unified={"cgroup.max.depth": "7"}))
        assert Path(bot.slice, "cgroup.max.depth").read_text() == "7\n"


WITHOUT_MAIN = """
import os, time
place = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
main = os.environ["MOUNT"] + place
with open(os.path.dirname(main) + "/cgroup.procs", "w") as procs:
    procs.write("0")
os.rmdir(main)
print("moved", flush=True)
time.sleep(1000)
"""


def test_an_update_of_a_bot_that_removed_main_is_one_clear_error(home: Path, tmp_path: Path) -> None:
    with Engine(home, tmp_path) as engine:
        bot = engine.start(sys.executable, "-c", WITHOUT_MAIN, ready=True, env={"MOUNT": str(mount_of(home))})
        with pytest.raises(UpdateError, match="removed its own cgroup"):
            bot.update(LinuxResources(unified={"cgroup.max.depth": "7"}))


def mount_of(home: Path) -> Path:
    """The directory that the paths in /proc/PID/cgroup are below."""
    return next(path for path in home.parents if os.path.ismount(path))


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
