"""Limits of running slices change as asked for, all of them or none, also under many hands."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from swarmcg.cgroup.find import find_home
from swarmcg.cgroup.limits import Limits
from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.cgroup.update import update
from swarmcg.errors import ResourcesError, SwarmcgError, UpdateError
from swarmcg.resources import LinuxResources
from tests.host.command import Command
from tests.host.engine import SOON_S, Engine
from tests.limits_model import FRESH, NONSENSE, UPDATES, outcome

if TYPE_CHECKING:
    from swarmcg.cgroup.home import Home
    from swarmcg.cgroup.slice import Slice

MB: Final = 1 << 20
MANY: Final = 64


@pytest.fixture
def made(home: Path) -> Iterator["Slices"]:
    slices = Slices(home)
    yield slices
    slices.remove()


class Slices:
    """Slices of bots without processes, whose files tests read by themselves."""

    def __init__(self, home: Path) -> None:
        self.home: Final[Home] = find_home(os.fspath(home))
        grant_all(home)
        self.home.prepare()
        self._made: Final[list[Slice]] = []

    def one(self, bot_id: str = "bot") -> str:
        incarnation = new_incarnation()
        intent = {"bot_id": bot_id, "incarnation": incarnation}
        held = self.home.create(slice_name(bot_id, incarnation), intent)
        held.remember("running", {"pid": os.getpid(), "start_time": 0, "at": 0.0})
        self._made.append(held)
        return held.path

    def remove(self) -> None:
        for held in self._made:
            held.remove()


def grant_all(home: Path) -> None:
    """Lets slices have as much protection as they like."""
    for name in ("memory.low", "memory.min"):
        (home / name).write_text("max")


def resources(asked: dict[str, Any]) -> LinuxResources:
    return LinuxResources.from_json(json.dumps(asked))


def shown(path: str) -> dict[str, str]:
    files = {file: Path(path, file).read_text().strip() for file in FRESH}
    if files["cpu.idle"] == "1":
        assert files["cpu.weight"] in {"0", "1"}  # Linux 6.1 shows 0, 6.12 shows 1; it has none
        files["cpu.weight"] = "0"
    return files


def recorded(path: str) -> Limits:
    return msgspec.json.decode(os.getxattr(path, "trusted.swarmcg.limits"), type=Limits)


@contextlib.contextmanager
def read_only(file: str) -> Iterator[None]:
    """A file that can be read, and cannot be opened for writing, even by root."""
    subprocess.run(["mount", "--bind", file, file], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", file], check=True)
        yield
    finally:
        subprocess.run(["umount", file], check=True)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(UPDATES, min_size=1, max_size=8))
def test_after_any_updates_the_files_are_what_the_model_says(
    made: Slices, updates: list[dict[str, Any]]
) -> None:
    path = made.one()
    expected, weight = shown(path), "100"
    assert expected == FRESH
    for asked in updates:
        after = outcome(expected, asked, weight)
        with contextlib.suppress(SwarmcgError):
            update([path], resources(asked))
            assert after is not None
        expected = after or expected
        weight = weight if expected["cpu.weight"] == "0" else expected["cpu.weight"]
        assert shown(path) == expected


def tagged(k: int, *, nonsense: bool) -> dict[str, Any]:
    """An update whose every value tells its number; a wrong one fails at its last write."""
    return {
        "cpu": {"quota": 1000 * k, "period": 100000 + k, "burst": 10 * k},
        "memory": {"limit": (k + 16) * MB, "swap": 2 * (k + 16) * MB, "reservation": k * MB},
        "pids": {"limit": k},
        "unified": {"memory.high": NONSENSE if nonsense else str((k + 8) * MB), "memory.min": str(k * 4096)},
    }


def tags(path: str) -> set[int]:
    files = shown(path)
    quota, period = map(int, files["cpu.max"].split())
    return {
        quota // 1000,
        period - 100000,
        int(files["cpu.max.burst"]) // 10,
        int(files["memory.max"]) // MB - 16,
        int(files["memory.swap.max"]) // MB - 16,
        int(files["memory.low"]) // MB,
        int(files["memory.high"]) // MB - 8,
        int(files["memory.min"]) // 4096,
        int(files["pids.max"]),
    }


def test_64_threads_at_once_never_mix_their_updates(made: Slices) -> None:
    path = made.one()
    failed: list[int] = []

    def change(k: int) -> None:
        try:
            update([path], resources(tagged(k, nonsense=k % 4 == 0)), within=60)
        except UpdateError:
            failed.append(k)

    threads = [threading.Thread(target=change, args=(k,)) for k in range(1, MANY + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(failed) == [k for k in range(1, MANY + 1) if k % 4 == 0]
    (winner,) = tags(path)
    assert winner % 4
    assert recorded(path).updates == MANY - len(failed)
    assert recorded(path).limits["pids.max"] == str(winner)


WORKER: Final = """
import sys
from swarmcg.cgroup.update import update
from swarmcg.errors import UpdateError
from swarmcg.resources import LinuxResources
for line in sys.stdin:
    try:
        update([sys.argv[1]], LinuxResources.from_json(line), within=60)
    except UpdateError:
        print("failed", flush=True)
"""


def test_updates_by_several_processes_never_mix(made: Slices) -> None:
    path = made.one()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for i, worker in enumerate(workers):
        assert worker.stdin is not None
        mine = range(i + 1, MANY + 1, len(workers))
        worker.stdin.write("".join(json.dumps(tagged(k, nonsense=k % 5 == 0)) + "\n" for k in mine))
        worker.stdin.close()
        worker.stdin = None
    said = "".join(worker.communicate(timeout=SOON_S)[0] for worker in workers)
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    assert said.count("failed") == MANY // 5
    (winner,) = tags(path)
    assert winner % 5
    assert recorded(path).updates == MANY - MANY // 5


def test_a_failure_in_the_middle_of_ten_bots_leaves_all_ten_as_they_were(made: Slices) -> None:
    paths = [made.one(f"bot-{i}") for i in range(10)]
    update(paths[:7], resources(tagged(3, nonsense=False)))
    before = [shown(path) for path in paths]
    records = [recorded(path) for path in paths[:7]]
    with read_only(f"{sorted(paths)[5]}/pids.max"), pytest.raises(UpdateError) as caught:
        update(paths, resources(tagged(9, nonsense=False)))
    assert caught.value.path == f"{sorted(paths)[5]}/pids.max"
    assert caught.value.in_force == {}
    assert [shown(path) for path in paths] == before
    assert [recorded(path) for path in paths[:7]] == records
    with pytest.raises(OSError, match="No data"):
        recorded(paths[8])
    update(paths, resources(tagged(9, nonsense=False)))
    assert [tags(path) for path in paths] == [{9}] * 10


@pytest.mark.parametrize("file", list(FRESH))
def test_ten_fields_are_as_they_were_whichever_of_them_fails(made: Slices, file: str) -> None:
    path = made.one()
    asked = {**tagged(9, nonsense=False)}
    asked["cpu"] = {**asked["cpu"], "shares": 2000}
    update([path], resources(tagged(3, nonsense=False)))
    if file == "cpu.idle":
        asked["cpu"] = {"quota": 9000, "idle": 1}
    before = shown(path)
    with read_only(f"{path}/{file}"), pytest.raises(UpdateError, match="as it was before"):
        update([path], resources(asked))
    assert shown(path) == before


def test_an_updater_that_was_killed_half_way_is_undone_by_the_next(made: Slices) -> None:
    path = made.one()
    update([path], resources(tagged(3, nonsense=False)))
    program = """
import os, signal, sys
from swarmcg.cgroup import slice_update as module
from swarmcg.cgroup.update import update
from swarmcg.resources import LinuxResources
write, left = module.exchange_line, [4]
def dying(path, line):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, line)
module.exchange_line = dying
update([sys.argv[1]], LinuxResources.from_json(sys.argv[2]))
"""
    words = [sys.executable, "-c", program, path, json.dumps(tagged(9, nonsense=False))]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert tags(path) == {3, 9}
    update([path], resources({"pids": {"limit": 3}}))
    assert tags(path) == {3}
    assert recorded(path).updates == 2


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


def test_a_bot_s_limits_change_and_bite_and_are_in_its_report(engine: Engine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    bot = engine.sh(f"sleep 0 || exit 4; echo ready; read _ <{gate}; sleep 0 || exit 3")
    bot.update(resources({"pids": {"limit": 100}, "memory": {"limit": 64 * MB}}))
    bot.update(resources({"pids": {"limit": 1}, "unified": {"memory.high": str(32 * MB)}}))
    opened = os.open(gate, os.O_RDWR)
    os.write(opened, b"\n")  # only now, as the update is through: it ends when it forks
    report = bot.wait(SOON_S)
    os.close(opened)
    assert report.reason == "exited"
    assert report.exit_code != 0
    assert report.limits == {"pids.max": "1", "memory.max": str(64 * MB), "memory.high": str(32 * MB)}
    with pytest.raises(UpdateError, match="ended"):
        bot.update(resources({"pids": {"limit": 5}}))


def test_a_frozen_bot_is_changed_and_stays_frozen(engine: Engine, home: Path) -> None:
    grant_all(home)
    bot = engine.start("sleep", "1000")
    Path(bot.slice, "cgroup.freeze").write_text("1")
    with Path(bot.slice, "cgroup.events").open() as events:
        while "frozen 1" not in events.read():
            events.seek(0)
    bot.update(resources(tagged(5, nonsense=False) | {"memory": {"limit": 21 * MB, "swap": 42 * MB}}))
    assert "frozen 1" in Path(bot.slice, "cgroup.events").read_text()
    assert Path(bot.slice, "memory.max").read_text() == f"{21 * MB}\n"


def test_a_limit_below_what_is_used_is_refused_if_it_shall_be(engine: Engine) -> None:
    program = "b = bytearray(b'x') * (24 << 20); print('ready', flush=True); import time; time.sleep(1000)"
    bot = engine.start(sys.executable, "-I", "-S", "-c", program, ready=True)
    asked = {"memory": {"limit": 16 * MB, "checkBeforeUpdate": True}, "pids": {"limit": 5}}
    with pytest.raises(ResourcesError, match="checkBeforeUpdate"):
        bot.update(resources(asked))
    assert Path(bot.slice, "memory.max").read_text() == "max\n"
    assert Path(bot.slice, "pids.max").read_text() == "max\n"
    bot.update(resources({"memory": {"limit": 16 * MB}}))  # goes to swap, of which there is enough
    assert Path(bot.slice, "memory.max").read_text() == f"{16 * MB}\n"
    assert int(Path(bot.slice, "memory.current").read_text()) <= 16 * MB
    bot.terminate_or_kill(0)
    assert bot.wait().oom_kills == 0


def test_a_bot_is_changed_from_another_process(engine: Engine, home: Path, tmp_path: Path) -> None:
    swarmcg = Command(home, tmp_path)
    one = engine.start("sleep", "1000", bot_id="one")
    two = engine.start("sleep", "1000", bot_id="two")
    done = swarmcg("set", "one", two.incarnation, "-m", "64m", "--pids-limit", "7", "--cpus", "0.5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for bot in (one, two):
        assert Path(bot.slice, "memory.max").read_text() == f"{64 * MB}\n"
        assert Path(bot.slice, "memory.swap.max").read_text() == "max\n"
        assert Path(bot.slice, "cpu.max").read_text() == "50000 100000\n"
    explained = swarmcg("explain", "--against", "one", "--json", "-m", "max", "--cpu-quota", "20ms")
    rows = {row["field"]: (row["file"], row["now"], row["then"]) for row in json.loads(explained.stdout)}
    assert rows["memory.limit"] == ("memory.max", str(64 * MB), "max")
    assert rows["cpu.quota"] == ("cpu.max", "50000 100000", "20000 100000")
    assert "cpu.period" not in rows
    for words, status, what in (
        (["one"], 2, "Nothing is to be changed"),
        (["three", "-m", "1g"], 2, "No bot of this id runs here"),
        (["one", "-m", "12x"], 2, "--memory cannot be used"),
        (["one", "-m", "1k"], 2, "rounds down, here to 0"),
        (["one", "two", "--resources", "/dev/null"], 2, "not valid JSON"),
    ):
        done = swarmcg("set", *words)
        assert (done.returncode, what in done.stderr) == (status, True)
    one.terminate_or_kill(0)
    assert one.wait().limits["memory.max"] == str(64 * MB)
