"""DroneStarter with real bots: their slices claim their work directories, and what they leave there is removed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from swarmcg import Config, DroneStarter, Starter
from swarmcg.drone.removal import remove_tree
from swarmcg.errors import BotCodeError, StateError
from swarmcg.places import places
from swarmcg.supervisor.remains import work_directories
from swarmcg.testing import SwarmingServer
from tests.host.engine import SOON_S, Engine, read_line, said, slices, until


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    with SwarmingServer() as server:
        yield server


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A working directory with a short path."""
    monkeypatch.setenv("SWARMCG_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SWARMCG_CACHE_DIR", str(tmp_path / "cache"))
    with tempfile.TemporaryDirectory(prefix="d") as made:
        yield os.path.realpath(made)


def make_config(bot_id: str, work_directory: str) -> Config:
    return Config(bot_id, work_directory, python_version=sys.executable)


def test_bots_run_in_directories_that_are_swept_when_they_have_ended(
    home: Path, directory: str, server: SwarmingServer
) -> None:
    ids = ["chromeos256-column8888", "b/../ö"]
    with Starter(server.url, home=home) as starter:
        drone = DroneStarter(directory, starter.start, make_config)
        bots = [drone.start(bot_id) for bot_id in ids]
        for bot_id in ids:
            server.wait_for_event("bot_connected", bot_id)
        made = work_directories(str(home))
        assert made is not None
        assert {os.path.dirname(path) for path in made} == {directory}
        assert drone.sweep([]) == []
        bots[0].drain()
        assert bots[0].wait(SOON_S).reason == "exited"
        assert [os.path.basename(path)[:11] for path in drone.sweep([])] == ["c256-c8888."]
        bots[1].terminate_or_kill()
        assert len(drone.sweep([])) == 1
        drone.close()
    assert os.listdir(directory) == ["cipd_cache"]
    assert slices(home) == []


def test_a_download_that_is_refused_leaves_nothing(
    home: Path, directory: str, server: SwarmingServer
) -> None:
    server.forbid("bot-1")
    with Starter(server.url, home=home) as starter:
        drone = DroneStarter(directory, starter.start, make_config)
        with pytest.raises(BotCodeError):
            drone.start("bot-1")
        drone.close()
    assert os.listdir(directory) == ["cipd_cache"]
    assert list(Path(places().state, "drones").glob("*.json")) == []


AGENT: Final = """
import sys
from swarmcg import Config, DroneStarter, Starter

url, home, directory = sys.argv[1:]
starter = Starter(url, home=home)
config = lambda bot_id, work: Config(bot_id, work, python_version=sys.executable, grace_interval=600)
drone = DroneStarter(directory, starter.start, config)
bot = drone.start("bot-1")
print(bot.pid, bot.slice, flush=True)
sys.stdin.read()
"""


def test_a_killed_agent_s_directory_is_kept_until_its_bot_s_slice_is_gone(
    home: Path, directory: str, server: SwarmingServer
) -> None:
    """The bot is stopped meanwhile, so that it neither hears SIGTERM nor ends before its grace period."""
    server.give_task(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    with said() as (hear, tell):
        command = [sys.executable, "-c", AGENT, server.url, str(home), directory]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=tell) as agent:
            where = read_line(hear).split()[1]
            server.wait_for_event("run")
            other = DroneStarter(directory, lambda config: pytest.fail(repr(config)), make_config)
            assert other.sweep([]) == []  # its starter lives
            agent.send_signal(signal.SIGKILL)
    assert other.sweep([]) == []  # its starter is dead, its slice is not
    assert len([name for name in os.listdir(directory) if name.startswith("b-1.")]) == 2
    Path(where, "cgroup.kill").write_text("1")
    until(lambda: not os.path.exists(where))
    assert len(other.sweep([])) == 1
    other.close()
    assert os.listdir(directory) == ["cipd_cache"]


def test_a_slice_that_tells_nothing_may_use_any_directory(home: Path, tmp_path: Path) -> None:
    with Engine(home, tmp_path) as engine:
        bot = engine.sh("echo ready; exec sleep 1000", work_directory="/work")
        assert work_directories(str(home)) == frozenset({"/work"})
        for name in ("trusted.swarmcg.intent", "user.swarmcg.intent"):
            if name in os.listxattr(bot.slice):
                os.setxattr(bot.slice, name, b"[]")
        assert work_directories(str(home)) is None
        bot.terminate(0)
        bot.wait(SOON_S)
    assert work_directories(str(home)) == frozenset()


MOUNTED: Final = """
import os, subprocess, sys
from swarmcg.drone.removal import remove_tree
from swarmcg.errors import StateError

tree, outside = sys.argv[1:]
for target in ("a/deep", "top"):
    os.makedirs(f"{tree}/{target}")
    subprocess.run(["mount", "--bind", outside, f"{tree}/{target}"], check=True)
open(f"{tree}/a/file", "w").close()
open(f"{tree}/a/mounted", "w").close()
subprocess.run(["mount", "--bind", f"{outside}/precious", f"{tree}/a/mounted"], check=True)
subprocess.run(["chmod", "000", f"{tree}/a"], check=True)
try:
    remove_tree(tree, 60)
except StateError as e:
    print(e.errno, e.remedy)
"""


def test_what_is_mounted_in_a_directory_is_not_entered(tmp_path: Path) -> None:
    """Not even from the same file system, whose device number is the same."""
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir(mode=0o755)
    (outside / "precious").write_text("precious")
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", MOUNTED]
    done = subprocess.run([*command, tree, outside], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("16 ")
    assert "umount" in done.stdout
    assert (outside / "precious").read_text() == "precious"
    assert outside.stat().st_mode & 0o777 == 0o755
    assert not list(tree.rglob("file"))
    remove_tree(str(tree), SOON_S)  # here nothing is mounted
    assert not tree.exists()


def test_an_immutable_file_is_told_and_the_rest_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "file").touch()
    (tree / "a" / "held").touch()
    chattr = shutil.which("chattr")
    if chattr is None or subprocess.run([chattr, "+i", tree / "a" / "held"], check=False).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        with pytest.raises(StateError, match="chattr -R -i"):
            remove_tree(str(tree), SOON_S)
        assert [path.name for path in tree.rglob("*") if path.is_file()] == ["held"]
    finally:
        subprocess.run([chattr, "-R", "-i", tree], check=True)
    remove_tree(str(tree), SOON_S)
    assert not tree.exists()
