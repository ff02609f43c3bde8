"""A DroneStarter with bots that are none: what it makes, what it leaves, and what it removes."""

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from swarmcg.bot import Bot, Config
from swarmcg.drone import DroneStarter, starter as module
from swarmcg.drone.owner import is_alive
from swarmcg.drone.records import Record, Records
from swarmcg.errors import ConfigError, OwnerLostError, StateError
from swarmcg.testing import FakeBot

SOON_S: Final = 90.0


class Drone:
    """A working directory, and what was said and started by the starters on it."""

    def __init__(self, directory: Path, state: Path) -> None:
        self.directory: Final = directory
        self.records: Final = Records(str(state / "drones"))
        self.said: Final[list[str]] = []
        self.configs: Final[list[Config]] = []
        self.bots: Final[list[FakeBot]] = []
        self.claims: frozenset[str] | None = frozenset()
        self._starters: Final[list[DroneStarter]] = []

    def starter(self, start_bot: Callable[[Config], Bot] | None = None) -> DroneStarter:
        made = DroneStarter(self.directory, start_bot or self.start_bot, make_config, self.said.append)
        self._starters.append(made)
        return made

    def start_bot(self, config: Config) -> FakeBot:
        self.configs.append(config)
        self.bots.append(FakeBot(bot_id=config.bot_id))
        Path(f"{os.fspath(config.work_directory)}.log").write_text("it says\n")
        return self.bots[-1]

    def paths(self) -> list[str]:
        return [os.fspath(config.work_directory) for config in self.configs]

    def recorded(self) -> list[str]:
        return [record.path for record in self.records.below(str(self.directory))]

    def close(self) -> None:
        for made in self._starters:
            made.close()


def make_config(bot_id: str, work_directory: str) -> Config:
    return Config(bot_id, work_directory, work_directory_limit=4096)


@pytest.fixture
def drone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drone]:
    monkeypatch.setenv("SWARMCG_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "bots").mkdir()
    made = Drone(tmp_path / "bots", tmp_path / "state")
    monkeypatch.setattr(module, "_claimed_by_slices", lambda: made.claims)
    yield made
    made.close()


def test_a_bot_gets_a_directory_of_its_own_that_is_on_record(drone: Drone) -> None:
    starter = drone.starter()
    assert starter.start("chromeos256-column8888") is drone.bots[0]
    starter.start("chromeos256-column8888")
    first, second = drone.paths()
    assert first != second
    assert drone.configs[0].bot_id == "chromeos256-column8888"
    for path in (first, second):
        assert os.path.dirname(path) == str(drone.directory)
        assert os.path.basename(path).startswith("c256-c8888.")
        assert os.path.isdir(path)
    assert drone.recorded() == [first, second]
    assert drone.said == []


def test_all_share_one_cipd_cache_that_outlives_them(drone: Drone) -> None:
    starter = drone.starter()
    starter.start("bot")
    link = Path(drone.paths()[0], "cipd_cache", "cache")
    assert os.readlink(link) == str(drone.directory / "cipd_cache")
    (link / "package").write_text("precious")
    drone.bots[0].stop()
    assert starter.sweep([]) == drone.paths()
    assert (drone.directory / "cipd_cache" / "package").read_text() == "precious"


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_cache_that_is_none_is_said_and_stops_nothing(drone: Drone, kind: str) -> None:
    shared = drone.directory / "cipd_cache"
    if kind == "file":
        shared.touch()
    else:
        os.symlink("/nonexistent", shared)
    drone.starter().start("bot")
    assert len(drone.bots) == 1
    assert [str(shared) in line for line in drone.said] == [True]
    assert "cache" not in os.listdir(drone.paths()[0])


def test_a_link_that_cannot_be_made_is_said_and_stops_nothing(
    drone: Drone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "symlink", refuse)
    drone.starter().start("bot")
    assert len(drone.bots) == 1
    assert len(drone.said) == 1
    assert "CIPD cache" in drone.said[0]
    assert "No space left" in drone.said[0]


@pytest.mark.parametrize("step", ["make_config", "start_bot"])
@pytest.mark.parametrize("error", [StateError("it fails"), KeyboardInterrupt(), RuntimeError("a fault")])
def test_nothing_is_left_of_a_failed_start(drone: Drone, step: str, error: BaseException) -> None:
    def fail(*words: object) -> Any:
        work = words[1] if step == "make_config" else words[0].work_directory  # type: ignore[attr-defined]
        Path(f"{work}.log").write_text("why")
        Path(f"{work}.drain").touch()
        Path(f"{work}/file").touch()
        assert drone.recorded() == [work]
        raise error

    start_bot, config = (drone.start_bot, fail) if step == "make_config" else (fail, make_config)
    starter = DroneStarter(drone.directory, start_bot, config, drone.said.append)
    with pytest.raises(type(error)) as caught:
        starter.start("bot")
    starter.close()
    assert caught.value is error
    assert os.listdir(drone.directory) == ["cipd_cache"]
    assert drone.recorded() == []
    assert drone.said == []


def test_the_record_is_there_before_the_directory(drone: Drone, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    mkdir = os.mkdir

    def look(path: str, mode: int = 0o777) -> None:
        if path.startswith(str(drone.directory)):
            seen.append(drone.recorded())
            assert os.listdir(drone.directory) == [] or path.endswith("cipd_cache")
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", look)
    drone.starter().start("bot")
    assert seen[0] == drone.paths()


def test_without_a_record_nothing_is_made(drone: Drone, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StateError) as caught:
        drone.starter().start("bot")
    assert caught.value.errno == 28
    assert os.listdir(drone.directory) == []
    assert [n for n in os.listdir(drone.records.directory) if "json" in n] == []


def test_a_directory_that_cannot_be_made_is_an_error(drone: Drone, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = os.mkdir

    def refuse(path: str, mode: int = 0o777) -> None:
        if path.startswith(str(drone.directory)):
            raise OSError(28, "No space left on device")
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(StateError, match="cannot be made"):
        drone.starter().start("bot")
    assert drone.recorded() == []


@pytest.mark.parametrize("bot_id", ["", "a\0b", "x" * 201, 17])
def test_an_unusable_id_makes_nothing(drone: Drone, bot_id: Any) -> None:
    with pytest.raises(ConfigError):
        drone.starter().start(bot_id)
    assert os.listdir(drone.directory) == []


@pytest.mark.parametrize("bot_id", ["/", "..", "../../x", "ботик", "x" * 200, "a\nb"])
def test_any_other_id_gets_one_directory_in_the_working_directory(drone: Drone, bot_id: str) -> None:
    drone.starter().start(bot_id)
    assert os.path.dirname(os.path.realpath(drone.paths()[0])) == str(drone.directory)
    assert sorted(os.listdir(drone.directory)) == sorted(
        ["cipd_cache", os.path.basename(drone.paths()[0]), os.path.basename(drone.paths()[0]) + ".log"]
    )


def test_a_working_directory_that_is_missing_is_an_error(drone: Drone) -> None:
    drone.directory.rmdir()
    with pytest.raises(ConfigError, match="does not exist") as caught:
        drone.starter().start("bot")
    assert "mkdir -p" in (caught.value.remedy or "")


def test_a_sweep_removes_ended_bots_directories_with_what_was_made_beside_them_and_nothing_else(
    drone: Drone,
) -> None:
    starter = drone.starter()
    starter.start("one")
    starter.start("two")
    one, two = drone.paths()
    Path(f"{one}.drain").touch()
    for moved in (".0123abcd.gone", ".log.0123abcd.gone"):  # by a sweep that was killed
        Path(one + moved, "below").mkdir(parents=True)
    others = [
        f"{os.path.basename(one)}{rest}"
        for rest in ("x", ".tar.gz", ".log.1", ".gone", ".backup.gone", ".drain.md")
    ]
    for other in others:
        (drone.directory / other).touch()
    assert starter.sweep([]) == []
    drone.bots[0].stop()
    assert starter.sweep([]) == [one]
    assert drone.recorded() == [two]
    assert sorted(os.listdir(drone.directory)) == sorted(
        ["cipd_cache", os.path.basename(two), f"{os.path.basename(two)}.log", *others]
    )


def test_a_bot_that_ended_with_an_error_has_ended(drone: Drone) -> None:
    starter = drone.starter()
    starter.start("bot")
    drone.bots[0].stop_with(OwnerLostError("its supervisor died"))
    drone.claims = frozenset(drone.paths())
    assert starter.sweep([]) == []  # its slice still names it
    drone.claims = frozenset()
    assert starter.sweep([]) == drone.paths()


@pytest.mark.parametrize("below", ["", "/sub"])
def test_what_a_slice_names_is_kept(drone: Drone, below: str) -> None:
    starter = drone.starter()
    starter.start("bot")
    drone.bots[0].stop()
    drone.claims = frozenset({drone.paths()[0] + below, "/elsewhere"})
    assert starter.sweep([]) == []
    drone.claims = None  # a slice does not tell what it uses
    assert starter.sweep([]) == []
    drone.claims = frozenset({drone.paths()[0] + "x"})
    assert starter.sweep([]) == drone.paths()


def test_of_a_designated_bot_the_newest_directory_is_kept(drone: Drone) -> None:
    starter = drone.starter()
    for bot_id in ("one", "one", "two"):
        starter.start(bot_id)
    for bot in drone.bots:
        bot.stop()
    first, second, other = drone.paths()
    assert starter.sweep() == [first]
    assert starter.sweep(["one"]) == [other]
    assert starter.sweep({"one", "two"}) == []
    assert starter.sweep(["two"]) == [second]


def test_a_start_sweeps_what_earlier_ones_left(drone: Drone) -> None:
    starter = drone.starter()
    for _ in range(4):
        starter.start("bot")
        drone.bots[-1].stop()
    assert drone.recorded() == drone.paths()[-2:]


def test_another_starter_s_directories_are_its_own_until_it_ends(drone: Drone) -> None:
    one, other = drone.starter(), drone.starter()
    one.start("bot")
    drone.bots[0].stop()
    assert other.sweep([]) == []
    one.close()
    assert other.sweep([]) == drone.paths()


def test_what_a_killed_program_left_is_swept(drone: Drone) -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {os.getcwd()!r})
from swarmcg import DroneStarter, Config
from swarmcg.testing import FakeBot

def start(config):
    if config.bot_id == "second":
        os.kill(os.getpid(), signal.SIGKILL)
    return FakeBot()

starter = DroneStarter({str(drone.directory)!r}, start, Config)
starter.start("first")
starter.start("second")
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -9
    assert len(drone.recorded()) == 2
    left = [Path(path) for path in drone.recorded()]
    assert all(path.is_dir() for path in left)
    assert sorted(drone.starter().sweep([])) == sorted(map(str, left))
    assert os.listdir(drone.directory) == ["cipd_cache"]
    assert [n for n in os.listdir(drone.records.directory) if n.endswith(".json")] == []


def test_a_directory_that_was_never_made_leaves_only_a_record_to_sweep(drone: Drone) -> None:
    path = str(drone.directory / "bot.abcdefgh")
    drone.records.write(Record(bot_id="bot", path=path, owner="nobody", created=time.time()))
    assert drone.starter().sweep([]) == [path]
    assert drone.recorded() == []


@pytest.mark.parametrize("name", ["bot-1", "cipd_cache", "..", "bot.abcdefgh/..", "bot.log"])
def test_a_record_that_names_anything_else_is_not_believed(drone: Drone, name: str) -> None:
    precious = drone.directory / "bot-1"
    for directory in (precious, drone.directory / "cipd_cache", drone.directory / "bot.abcdefgh"):
        directory.mkdir()
    path = f"{drone.directory}/{name}"
    drone.records.write(Record(bot_id="bot", path=path, owner="nobody", created=time.time()))
    assert drone.starter().sweep([]) == []
    assert precious.is_dir()
    assert (drone.directory / "cipd_cache").is_dir()


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 60_000, '{"bot_id": 1}', '{"path": "/"}'])
def test_damaged_records_stop_nothing(drone: Drone, text: str) -> None:
    drone.records.make_directory()
    Path(drone.records.directory, "bot.abcdefgh.json").write_text(text)
    starter = drone.starter()
    starter.start("bot")
    assert starter.sweep([]) == []
    assert os.path.isdir(drone.paths()[0])


def test_directories_without_a_record_and_of_other_drones_are_kept(drone: Drone, tmp_path: Path) -> None:
    (drone.directory / "bot.abcdefgh").mkdir()
    other = tmp_path / "other"
    (other / "bot.abcdefgh").mkdir(parents=True)
    path = str(other / "bot.abcdefgh")
    drone.records.write(Record(bot_id="bot", path=path, owner="nobody", created=time.time()))
    assert drone.starter().sweep([]) == []
    assert (drone.directory / "bot.abcdefgh").is_dir()
    assert os.path.isdir(path)


def test_a_link_in_a_directory_s_place_is_removed_and_not_followed(drone: Drone, tmp_path: Path) -> None:
    starter = drone.starter()
    starter.start("bot")
    drone.bots[0].stop()
    path = drone.paths()[0]
    shutil.rmtree(path)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    os.symlink(tmp_path / "precious", path)
    assert starter.sweep([]) == [path]
    assert (tmp_path / "precious" / "file").exists()


def test_what_cannot_be_removed_is_said_and_tried_again(
    drone: Drone, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter = drone.starter()
    for bot_id in ("one", "two"):
        starter.start(bot_id)
        drone.bots[-1].stop()
    one, two = drone.paths()
    rename = os.rename

    def refuse(source: str, target: str, **more: int) -> None:
        if source == one:
            raise OSError(16, "Device or resource busy", source)
        rename(source, target, **more)

    monkeypatch.setattr(os, "rename", refuse)
    assert starter.sweep([]) == [two]
    assert len(drone.said) == 1
    assert one in drone.said[0]
    assert "umount" in drone.said[0]
    monkeypatch.setattr(os, "rename", rename)
    assert starter.sweep([]) == [one]


def test_a_sweep_keeps_to_its_time(drone: Drone) -> None:
    starter = drone.starter()
    starter.start("bot")
    drone.bots[0].stop()
    assert starter.sweep([], within=0) == []
    assert starter.sweep([]) == drone.paths()


def test_starts_and_sweeps_of_many_threads_and_starters(drone: Drone) -> None:
    """Nobody's directory goes while its bot lives; nothing is left in the end."""
    missing: list[str] = []

    def start_bot(config: Config) -> FakeBot:
        return FakeBot(bot_id=os.fspath(config.work_directory))

    def work(starter: DroneStarter) -> None:
        for number in range(10):
            bot = starter.start(f"bot-{number % 3}")
            other.sweep([])
            path = bot._bot_id  # type: ignore[attr-defined]
            if not os.path.isdir(path):
                missing.append(path)
            bot.stop()  # type: ignore[attr-defined]
            starter.sweep([])

    starters = [drone.starter(start_bot) for _ in range(3)]
    other = drone.starter()
    threads = [threading.Thread(target=work, args=(starter,)) for starter in starters for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    for starter in starters:
        starter.close()
    other.sweep([])
    assert missing == []
    assert drone.recorded() == []
    assert os.listdir(drone.directory) == ["cipd_cache"]
    assert drone.said == []


def test_dead_starters_files_are_swept_and_living_ones_kept(drone: Drone) -> None:
    one, other = drone.starter(), drone.starter()
    one.start("bot")
    other.start("bot")
    one.close()
    drone.bots[0].stop()
    other.sweep([])
    assert len([n for n in os.listdir(drone.records.directory) if n.endswith(".owner")]) == 1


def test_a_closed_starter_leaves_no_file_and_its_record_to_the_others(drone: Drone) -> None:
    starter = drone.starter()
    starter.start("bot")
    (record,) = drone.records.below(str(drone.directory))
    assert is_alive(drone.records.directory, record.owner)
    starter.close()
    assert [n for n in os.listdir(drone.records.directory) if n.endswith(".owner")] == []
    assert not is_alive(drone.records.directory, record.owner)


def test_a_starter_counts_as_living_while_that_cannot_be_found_out(drone: Drone) -> None:
    drone.starter().start("bot")
    (record,) = drone.records.below(str(drone.directory))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        unknown = is_alive(drone.records.directory, record.owner)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert unknown
    assert not is_alive(drone.records.directory, "nobody")
