"""swarmcg's own processes killed with -9, at any point: no bot escapes, and every end is reported once."""

import contextlib
import errno
import os
import random
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from swarmcg.cgroup.home import Home
from swarmcg.cgroup.slice import recall
from swarmcg.errors import OwnerLostError, StartError, SwarmcgError
from swarmcg.journal import Journal
from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.incarnation import Incarnation, Nobody
from swarmcg.supervisor.keepers import RemoteKeeper
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.service import end_all
from swarmcg.supervisor.supervisor import Supervisor
from tests.host.engine import ENV, SOON_S, Driver, Engine, read_line, reported, reports, slices, until

pytestmark = pytest.mark.hostile

ROUNDS: Final = int(os.environ.get("SWARMCG_CRASHES", "30"))
PATIENT: Final = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done"
DEAF: Final = "trap '' TERM; echo ready; while :; do sleep 1000; done"
QUIET: Final = (0, 1, 2)
OWNER: Final = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.host.engine import Engine
engine = Engine({home!r}, Path({state!r}))
bot = engine.sh({script!r}, grace={grace})
print(bot.slice, flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


def clean(home: Home, journal: Path) -> int:
    """What ``swarmcg clean --yes`` does: takes every slice without an owner over, and ends it. How many there were."""
    supervisor = Supervisor(home, Journal(str(journal)), in_process=True)
    found = list(home.ownerless())
    for held in found:
        supervisor.adopt(held, Nobody())
    for bot in list(supervisor.bots.values()):
        bot.stop(0)
    end_all(supervisor)
    return len(found)


def test_a_dead_supervisor_s_bots_are_ended_by_the_ladder_and_reported(engine: Engine, home: Path) -> None:
    bot = engine.sh(PATIENT)
    os.kill(engine.supervisor.pid, signal.SIGKILL)
    with pytest.raises(OwnerLostError) as caught:
        bot.wait(SOON_S)
    assert caught.value.remedy
    until(lambda: not slices(home))
    (report,) = engine.reports()
    assert (report.incarnation, report.reason, report.exit_code) == (bot.incarnation, "terminated", 0)


def test_a_supervisor_that_dies_before_it_has_tidied_up_leaves_no_home(home: Path, tmp_path: Path) -> None:
    ours = home / "ours"
    with Engine(ours, tmp_path) as engine:
        bot = engine.start("true")
        bot.wait(SOON_S)
        os.kill(engine.supervisor.pid, signal.SIGKILL)
        until(lambda: not ours.exists())
    assert reported(engine.journal) == {bot.incarnation: 1}


def test_a_deaf_bot_of_a_dead_supervisor_is_killed_after_its_grace(engine: Engine, home: Path) -> None:
    bot = engine.sh(DEAF, grace=0.2)
    os.kill(engine.supervisor.pid, signal.SIGKILL)
    until(lambda: not slices(home))
    (report,) = engine.reports()
    assert (report.incarnation, report.reason) == (bot.incarnation, "killed-after-grace")
    assert report.leftovers.count >= 1


def test_every_method_says_that_the_owner_is_lost_and_none_hangs(engine: Engine, home: Path) -> None:
    bot = engine.sh(PATIENT)
    os.kill(engine.supervisor.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(OwnerLostError):
            bot.wait()
    with pytest.raises(OwnerLostError):
        bot.terminate_or_kill()
    bot.drain()
    bot.terminate()
    with pytest.raises(OwnerLostError):
        engine.start("true")
    until(lambda: not engine.connection.alive)  # its sockets close a moment before it is a zombie
    until(lambda: not slices(home))


def test_many_bots_of_a_dead_supervisor(engine: Engine, home: Path) -> None:
    bots = [engine.sh(PATIENT, bot_id=f"b{number}") for number in range(8)]
    os.kill(engine.supervisor.pid, signal.SIGKILL)
    until(lambda: not slices(home))
    assert reported(engine.journal) == {bot.incarnation: 1 for bot in bots}


def test_a_dead_heir_has_an_heir(engine: Engine, home: Path) -> None:
    bot = engine.sh(DEAF, grace=1.0)
    keeper = engine.keeper
    os.kill(engine.supervisor.pid, signal.SIGKILL)
    heir = until(lambda: next((p for p in keeper.children() if "heir" in " ".join(p.cmdline())), None))
    heir.kill()
    until(lambda: not slices(home))
    assert reported(engine.journal) == {bot.incarnation: 1}


def test_a_bot_outlives_its_keeper_and_ends_unobserved(engine: Engine, home: Path) -> None:
    bot = engine.start("sleep", "1000")
    keeper = engine.keeper
    keeper.kill()
    keeper.wait(SOON_S)
    assert engine.start("/bin/sh", "-c", "exit 3").wait(SOON_S).exit_code == 3
    os.kill(bot.pid, signal.SIGKILL)
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code, report.signal) == ("unobserved", None, None)
    assert slices(home) == []


def test_a_bot_without_its_keeper_can_be_terminated(engine: Engine, home: Path) -> None:
    bot = engine.sh(f"sleep 1000 & {DEAF}")
    engine.keeper.kill()
    bot.terminate_or_kill(0.1)
    assert bot.wait().reason == "unobserved"
    assert slices(home) == []


def test_keepers_that_die_again_and_again_stop_no_start(engine: Engine, home: Path) -> None:
    for _ in range(3):
        keeper = engine.keeper
        keeper.kill()
        keeper.wait(SOON_S)
        assert engine.start("true").wait(SOON_S).exit_code == 0
    assert slices(home) == []


def test_bots_stay_owned_when_no_new_keeper_can_start(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(home, tmp_path)
    tries: list[float] = []

    def refused(*_: object, **__: object) -> None:
        tries.append(time.monotonic())
        raise BlockingIOError(errno.EAGAIN, "as at a limit of processes")

    def start(program: str) -> Incarnation:
        return driver.supervisor.start(
            Launch(bot_id="bot"),
            Order([program, "1000"], ENV, procs=-1, cwd="/", stdio=QUIET, oom_score_adj=0),
            driver,
        )

    try:
        bots = [start("sleep") for _ in range(2)]
        driver.turn_until(lambda: len(driver.began) == len(bots))
        keeper = driver.supervisor._keeper
        assert isinstance(keeper, RemoteKeeper)
        process = keeper._process
        assert process is not None
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", refused)
            process.kill()
            driver.turn_until(lambda: len(tries) > 3)
            assert tries[3] - tries[2] > tries[1] - tries[0] > 0
            with pytest.raises(StartError) as caught:
                start("sleep")
            assert (caught.value.step, caught.value.errno) == ("keeper", errno.EAGAIN)
            assert caught.value.remedy
            assert slices(home) == sorted(os.path.basename(bot.slice.path) for bot in bots)
            bots[0].stop(0)
            driver.turn_until(lambda: driver.ends)
            assert driver.ends[0][0].reason == "unobserved"
        driver.turn_until(lambda: driver.supervisor._keeper.fileno() >= 0)
        start("true")
        driver.turn_until(lambda: len(driver.ends) == 2)
        assert driver.ends[1][0].reason == "exited"
        bots[1].stop(0)
        driver.turn_until(lambda: len(driver.ends) == 3)
    finally:
        driver.supervisor.close()
    assert slices(home) == []


def test_a_supervisor_without_descriptors_outlives_its_keeper(engine: Engine, home: Path) -> None:
    bots = [engine.start("sleep", "1000", bot_id=f"b{number}") for number in range(3)]
    supervisor, keeper = engine.supervisor, engine.keeper
    limits = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (supervisor.num_fds(), limits[1]))
    keeper.kill()
    until(lambda: keeper not in supervisor.children())
    with pytest.raises(SwarmcgError):
        engine.start("true")
    resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, limits)
    assert engine.start("true").wait(SOON_S).exit_code == 0
    for bot in bots:
        bot.terminate_or_kill(0)
        assert bot.wait(SOON_S).reason == "unobserved"
    assert slices(home) == []


def test_a_keeper_that_cannot_start_an_heir_yet_tries_again(engine: Engine, home: Path) -> None:
    bot = engine.sh(PATIENT)
    supervisor, keeper = engine.supervisor, engine.keeper
    limits, before = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE), keeper.num_fds()
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    supervisor.kill()

    def tried() -> bool:
        """Its wire is closed, and it waits; or it is gone."""
        with contextlib.suppress(psutil.Error):
            return keeper.num_fds() < before and keeper.status() == psutil.STATUS_SLEEPING
        return True

    until(tried)
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, limits)
    until(lambda: not slices(home))
    (report,) = engine.reports()
    assert (report.incarnation, report.reason, report.exit_code) == (bot.incarnation, "terminated", 0)


@pytest.mark.parametrize(("script", "reason"), [(PATIENT, "terminated"), (DEAF, "killed-after-grace")])
def test_the_bots_of_a_dead_owner_are_ended_and_reported(
    home: Path, tmp_path: Path, script: str, reason: str
) -> None:
    root = str(Path(__file__).parents[2])
    program = OWNER.format(
        root=root, home=str(home), state=str(tmp_path), script=script, grace=0.2 if script is DEAF else SOON_S
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        slice_name = os.path.basename(read_line(owner.stdout.fileno()))
        helpers = psutil.Process(owner.pid).children(recursive=True)
        assert slices(home) == [slice_name]
        owner.kill()
    until(lambda: not slices(home))
    (report,) = reports(tmp_path / "reports.jsonl")
    assert (report.incarnation, report.reason) == (slice_name.rpartition(".")[2], reason)
    assert psutil.wait_procs(helpers, SOON_S)[1] == []


def test_nothing_owned_is_ever_taken_for_ownerless(engine: Engine) -> None:
    engine.start("sleep", "1000")
    assert list(engine.home.ownerless()) == []


def left_of_a_start(engine: Engine) -> str:
    """A slice whose owner died between making it and starting anything in it."""
    held = engine.home.create(
        "bot.0123456789abcdef",
        {
            "bot_id": "bot",
            "incarnation": "0123456789abcdef",
            "grace": 1.0,
            "journal": str(engine.journal),
            "ours": False,
            "created": time.time(),
        },
    )
    held.close()
    return held.path


def test_who_looks_hides_nothing_from_who_takes_over_at_the_same_time(engine: Engine) -> None:
    path = left_of_a_start(engine)
    look = engine.home.abandoned()
    assert next(look) == path  # and now it says what it saw, for as long as that takes
    (held,) = engine.home.ownerless()
    assert list(engine.home.abandoned()) == []  # it has an owner now
    held.remove()
    assert list(look) == []


def test_what_is_left_of_a_start_is_reported_as_interrupted(engine: Engine, home: Path) -> None:
    left_of_a_start(engine)
    assert list(engine.home.abandoned()) == list(engine.home.abandoned()) != []
    assert clean(engine.home, engine.journal) == 1
    (report,) = engine.reports()
    assert (report.reason, report.exit_code, report.started_at) == ("start-interrupted", None, None)
    assert slices(home) == []


@pytest.mark.parametrize("attribute", [None, b"", b"{", b"[]", b'{"bot_id": 7}'])
def test_a_slice_that_tells_nothing_of_itself_is_emptied_and_removed(
    engine: Engine, home: Path, attribute: bytes | None
) -> None:
    slice_ = home / "bot.0123456789abcdef"
    (slice_ / "main").mkdir(parents=True)
    if attribute is not None:
        os.setxattr(slice_, "trusted.swarmcg.intent", attribute)
    stray = subprocess.Popen(["sleep", "1000"])
    (slice_ / "main" / "cgroup.procs").write_text(str(stray.pid))
    assert clean(engine.home, engine.journal) == 1
    assert stray.wait(SOON_S) == -signal.SIGKILL
    assert slices(home) == []


def test_a_known_incarnation_is_not_reported_twice(engine: Engine, home: Path) -> None:
    """A crash between the report and the removal."""
    bot = engine.start("true")
    report = bot.wait(SOON_S)
    again = home / os.path.basename(bot.slice)
    held = engine.home.create(
        again.name,
        {
            "bot_id": "bot",
            "incarnation": report.incarnation,
            "grace": 1.0,
            "journal": str(engine.journal),
            "ours": False,
            "created": time.time(),
        },
    )
    held.close()
    assert clean(engine.home, engine.journal) == 1
    assert engine.reports() == [report]
    assert slices(home) == []


def test_a_start_that_failed_unheard_leaves_no_slice(home: Path, tmp_path: Path) -> None:
    """The keeper has told, and forgotten the child; the owner dies before it takes that in."""
    driver = Driver(home, tmp_path)
    bot = driver.supervisor.start(
        Launch(bot_id="bot"), Order(["/nonexistent"], ENV, procs=-1, stdio=QUIET), driver
    )
    poll = select.poll()
    poll.register(driver.supervisor._keeper.fileno(), select.POLLIN)
    assert poll.poll(SOON_S * 1000)
    driver.supervisor.close()
    until(lambda: not slices(home))
    until(lambda: reported(driver.journal) == {bot.key: 1})
    assert driver.failures == []


def test_a_start_that_fails_after_its_owner_died_leaves_no_slice(home: Path, tmp_path: Path) -> None:
    """The child is born and has not executed its program when the heir takes over."""
    driver = Driver(home, tmp_path)
    (home / "cgroup.freeze").write_text("1")  # it stops where it joins
    try:
        bot = driver.supervisor.start(
            Launch(bot_id="bot", grace=SOON_S), Order(["/nonexistent"], ENV, procs=-1, stdio=QUIET), driver
        )
        until(lambda: bot.slice.recall("running"))
        assert owner(bot.slice.path) == os.getpid()
        driver.supervisor.close()
        until(lambda: owner(bot.slice.path) != os.getpid())
    finally:
        (home / "cgroup.freeze").write_text("0")
    until(lambda: not slices(home))
    (report,) = reports(driver.journal)
    assert (report.incarnation, report.reason, report.started_at) == (bot.key, "start-interrupted", None)


def test_an_heir_ends_a_main_process_that_was_moved_out_of_its_slice(engine: Engine, home: Path) -> None:
    bot = engine.start("/bin/sh", "-c", "trap '' TERM; exec sleep 1000", grace=0.2)
    (home / "elsewhere").mkdir()
    try:
        (home / "elsewhere" / "cgroup.procs").write_text(str(bot.pid))
        os.kill(engine.supervisor.pid, signal.SIGKILL)
        until(lambda: slices(home) == ["elsewhere"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(bot.pid, signal.SIGKILL)
        until(lambda: not (home / "elsewhere" / "cgroup.procs").read_text())
        (home / "elsewhere").rmdir()
    (report,) = engine.reports()
    assert (report.incarnation, report.signal) == (bot.incarnation, signal.SIGKILL)


def owner(path: str) -> int | None:
    found = recall(path, "owner")
    return None if found is None else found["pid"]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_any_point_of_a_start_or_a_stop(
    home: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMCG_STATE_DIR", str(tmp_path))
    chance = random.Random(seed)
    before = own_processes(tmp_path)
    engine = Engine(home, tmp_path)
    started: list[str] = []
    gone = threading.Event()

    def live() -> None:
        with contextlib.suppress(SwarmcgError):
            for _ in range(3):
                bot = engine.start("/bin/sh", "-c", "sleep 1000 & exec sleep 1000", grace=0.1)
                started.append(bot.incarnation)
                bot.terminate_or_kill(0.02)
        gone.set()

    if chance.random() < 0.7:  # the others die while they come up
        engine.start("true").wait(SOON_S)
    life = threading.Thread(target=live)
    life.start()
    gone.wait(chance.uniform(0, 0.1))
    crash(engine, with_keeper=chance.random() < 0.5)
    life.join(SOON_S)
    engine.connection.close(SOON_S)
    until(lambda: own_processes(tmp_path) == before)
    clean(engine.home, engine.journal)
    assert clean(engine.home, engine.journal) == 0
    assert slices(home) == []
    counted = reported(engine.journal)
    assert set(started) <= set(counted)
    assert set(counted.values()) <= {1}


def crash(engine: Engine, *, with_keeper: bool) -> None:
    """Kills the supervisor and perhaps its keeper, as if at once: neither acts on the other's death."""
    victims = [engine.supervisor.pid]
    if with_keeper:
        victims += [child.pid for child in engine.supervisor.children()]
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def own_processes(state: Path) -> set[int]:
    """Supervisors, keepers and heirs of this journal."""
    found: set[int] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and "swarmcg" in " ".join(process.cmdline()):
                found.update(
                    {process.pid} if str(state) in process.environ().get("SWARMCG_STATE_DIR", "") else ()
                )
    return found
