"""A start that fails: one exact error, and nothing is left of it."""

import contextlib
import errno
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from swarmcg.cgroup.find import find_home
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import (
    CgroupError,
    ConfigError,
    HomeError,
    NetworkError,
    StartError,
    StateError,
    SwarmcgError,
    UnenforceableError,
)
from swarmcg.flock import WITHIN_S
from swarmcg.keeper.spawn import Order
from swarmcg.resources import LinuxResources
from swarmcg.supervisor.launch import Launch
from tests.host.engine import ENV, SOON_S, Driver, Engine, slices, until

LIMITED = LinuxResources.from_json('{"memory": {"limit": 67108864}, "pids": {"limit": 100}}')


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


def assert_nothing_is_left(engine: Engine, home: Path) -> None:
    assert slices(home) == []
    assert engine.keeper.children() == []
    assert [p for p in engine.supervisor.children() if p.status() == psutil.STATUS_ZOMBIE] == []
    assert engine.reports() == []


def refusal(engine: Engine, *argv: str, cwd: str = "/", env: dict[str, str] | None = None) -> StartError:
    with pytest.raises(StartError) as caught:
        engine.start(*argv, cwd=cwd, env=env)
    return caught.value


def test_no_such_program(engine: Engine, home: Path) -> None:
    error = refusal(engine, "/nonexistent/program")
    assert (error.step, error.errno, error.path) == ("exec", errno.ENOENT, "/nonexistent/program")
    assert error.remedy
    assert_nothing_is_left(engine, home)


def test_a_program_that_is_not_in_path(engine: Engine, home: Path) -> None:
    assert (refusal(engine, "swarmcg-has-no-such-program").errno) == errno.ENOENT
    assert_nothing_is_left(engine, home)


def test_a_file_that_is_not_executable(engine: Engine, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "plain"
    file.write_text("#!/bin/sh\n")
    error = refusal(engine, str(file))
    assert (error.step, error.errno, error.path) == ("exec", errno.EACCES, str(file))
    assert "chmod" in (error.remedy or "")
    assert_nothing_is_left(engine, home)


def test_a_directory_is_no_program(engine: Engine, home: Path) -> None:
    assert refusal(engine, "/tmp").errno == errno.EACCES
    assert_nothing_is_left(engine, home)


def test_a_script_without_a_first_line_is_never_guessed_at(
    engine: Engine, home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "script"
    file.write_text("echo hello\n")
    file.chmod(0o755)
    error = refusal(engine, str(file))
    assert (error.step, error.errno) == ("exec", errno.ENOEXEC)
    assert "#!" in (error.remedy or "")
    assert_nothing_is_left(engine, home)


def test_a_script_whose_interpreter_is_missing(engine: Engine, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("#!/nonexistent/interpreter\n")
    file.chmod(0o755)
    assert refusal(engine, str(file)).errno == errno.ENOENT
    assert_nothing_is_left(engine, home)


def test_a_directory_that_is_missing(engine: Engine, home: Path) -> None:
    error = refusal(engine, "true", cwd="/nonexistent")
    assert (error.step, error.errno, error.path) == ("chdir", errno.ENOENT, "/nonexistent")
    assert_nothing_is_left(engine, home)


def test_a_directory_that_is_a_file(engine: Engine, home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(engine, "true", cwd=str(tmp_path / "file")).errno == errno.ENOTDIR
    assert_nothing_is_left(engine, home)


@pytest.mark.parametrize("what", ["argument", "environment"])
def test_too_many_arguments(engine: Engine, home: Path, what: str) -> None:
    long = "x" * 200_000  # one string has at most 32 pages (MAX_ARG_STRLEN, include/uapi/linux/binfmts.h)
    error = (
        refusal(engine, "true", long)
        if what == "argument"
        else refusal(engine, "true", env=ENV | {"X": long})
    )
    assert (error.step, error.errno) == ("exec", errno.E2BIG)
    assert_nothing_is_left(engine, home)


def test_an_error_tells_what_why_and_the_cure_in_three_lines(engine: Engine) -> None:
    lines = str(refusal(engine, "/nonexistent/program")).splitlines()
    assert len(lines) == 3
    assert "/nonexistent/program" in lines[0]
    assert "ENOENT" in lines[1]


def test_after_a_failed_start_the_next_one_works(engine: Engine) -> None:
    refusal(engine, "/nonexistent")
    assert engine.start("true").wait(SOON_S).exit_code == 0


@pytest.mark.parametrize("argv", [[], ["\0"], ["true", "a\0b"]])
def test_a_command_that_no_kernel_takes_is_one_error_and_harms_nobody(
    engine: Engine, home: Path, argv: list[str]
) -> None:
    with pytest.raises(SwarmcgError):
        engine.start(*argv)
    assert engine.start("true").wait(SOON_S).exit_code == 0
    assert slices(home) == []


def test_many_failed_starts_leave_no_descriptor_behind(engine: Engine) -> None:
    refusal(engine, "/nonexistent")
    supervisor, keeper = engine.supervisor.num_fds(), engine.keeper.num_fds()
    for _ in range(20):
        refusal(engine, "/nonexistent")
    until(lambda: engine.supervisor.num_fds() <= supervisor and engine.keeper.num_fds() <= keeper)


def test_many_bots_leave_no_descriptor_behind(engine: Engine) -> None:
    engine.start("true").wait(SOON_S)
    supervisor, keeper = engine.supervisor.num_fds(), engine.keeper.num_fds()
    for _ in range(20):
        engine.start("true").wait(SOON_S)
    # It hangs up a moment after it told the end.
    until(lambda: engine.supervisor.num_fds() <= supervisor and engine.keeper.num_fds() <= keeper)


def test_a_keeper_without_descriptors_says_so_and_recovers(engine: Engine, home: Path) -> None:
    engine.start("true").wait(SOON_S)
    keeper = engine.keeper
    limits = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (keeper.num_fds() + 6, limits[1]))
    with pytest.raises(SwarmcgError):
        engine.start("true")
    assert slices(home) == []
    if keeper.is_running():
        resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, limits)
    assert engine.start("true").wait(SOON_S).exit_code == 0


def test_limits_that_a_hybrid_host_cannot_give_are_refused_with_the_cure(engine: Engine, home: Path) -> None:
    if "memory" in engine.home.abilities().controllers:
        pytest.skip("this host has the memory controller")
    with pytest.raises(UnenforceableError) as caught:
        engine.start("true", resources=LIMITED)
    assert caught.value.remedy
    assert "memory.limit" in caught.value.what
    assert_nothing_is_left(engine, home)


def test_the_report_policy_starts_and_lists_what_was_not_in_force(engine: Engine) -> None:
    if "memory" in engine.home.abilities().controllers:
        pytest.skip("this host has the memory controller")
    report = engine.start("true", resources=LIMITED, on_unenforceable="report").wait(SOON_S)
    assert {row.field for row in report.unenforced} >= {"memory.limit", "pids.limit"}
    assert all(row.why and row.remedy for row in report.unenforced)
    assert report.limits == {}


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/x"])
def test_a_state_directory_that_cannot_be_written_fails_before_anything_is_made(
    home: Path, place: str
) -> None:
    with Engine(home, Path(place)) as engine:
        with pytest.raises(StateError) as caught:
            engine.start("true")
        assert caught.value.path == f"{place}/reports.jsonl"
        assert caught.value.remedy
        assert slices(home) == []


def test_a_journal_that_is_no_file(home: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "reports.jsonl")
    with Engine(home, tmp_path) as engine, pytest.raises(StateError):
        engine.start("true")


def test_a_home_that_is_full_of_cgroups(engine: Engine, home: Path) -> None:
    (home / "cgroup.max.descendants").write_text("1")
    try:
        with pytest.raises(CgroupError) as caught:
            engine.start("true")
    finally:
        (home / "cgroup.max.descendants").write_text("max")
    assert caught.value.errno == errno.EAGAIN
    assert "descendants" in (caught.value.remedy or "")
    assert slices(home) == []


def test_a_home_that_vanished(tmp_path: Path, home: Path) -> None:
    gone = home / "gone"
    gone.mkdir()
    with Engine(gone, tmp_path) as engine:
        engine.start("true").wait(SOON_S)
        gone.rmdir()
        with pytest.raises(CgroupError):
            engine.start("true")


def test_a_home_of_our_own_is_made_when_needed_and_removed_when_empty(tmp_path: Path, home: Path) -> None:
    ours = home / "ours"
    with Engine(ours, tmp_path) as engine:
        assert not ours.exists()
        for _ in range(2):
            bot = engine.start("sleep", "1000")
            assert slices(ours) == [os.path.basename(bot.slice)]
            bot.terminate_or_kill(0)
            until(lambda: not ours.exists())


def test_starts_in_a_row_find_the_home_of_the_last_and_its_end_removes_it(tmp_path: Path, home: Path) -> None:
    ours = home / "ours"
    with Engine(ours, tmp_path) as engine:
        seen = set()
        for _ in range(20):
            engine.start("true").wait(SOON_S)
            with contextlib.suppress(FileNotFoundError):
                seen.add(ours.stat().st_ino)
    assert 0 < len(seen) < 20
    assert not ours.exists()


@pytest.mark.parametrize(
    ("where", "what"),
    [("/tmp", "not a cgroup"), ("{home}/a/b", "does not exist")],
)
def test_a_home_that_is_none(home: Path, where: str, what: str) -> None:
    with pytest.raises(HomeError, match=what) as caught:
        find_home(where.format(home=home))
    assert caught.value.remedy


def test_a_grace_that_makes_no_sense(engine: Engine) -> None:
    bot = engine.start("sleep", "1000")
    for grace in (-1, float("nan"), float("inf"), "3", True):
        with pytest.raises(ConfigError):
            bot.terminate_or_kill(grace)  # type: ignore[arg-type]
    os.kill(bot.pid, 0)


def test_a_supervisor_that_forks_by_itself_reports_failures_alike(home: Path, tmp_path: Path) -> None:
    driver = Driver(home, tmp_path, in_process=True)
    try:
        driver.supervisor.start(Launch(bot_id="bot"), Order(["/nonexistent"], ENV, procs=-1), driver)
        driver.turn_until(lambda: driver.failures)
    finally:
        driver.supervisor.close()
    (error,) = driver.failures
    assert isinstance(error, StartError)
    assert (error.step, error.errno) == ("exec", errno.ENOENT)
    assert slices(home) == []


def test_a_supervisor_that_cannot_be_started_says_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Engine(home, tmp_path) as engine, pytest.raises(SwarmcgError) as caught:
        engine.start("true")
    assert caught.value.remedy


@pytest.mark.parametrize("step", ["limits", "intent", "home"])
def test_a_failed_start_whose_slice_resists_tells_its_own_error_and_holds_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise CgroupError("the first error")

    def resist(*_: object, **__: object) -> None:
        raise NetworkError("the lock of packet rules is held")

    driver = Driver(home / "ours", tmp_path, in_process=True)
    try:
        driver.supervisor.plan(Launch(bot_id="bot"))
        with monkeypatch.context() as patch:
            patch.setattr(Slice, "remove", resist)
            patch.setattr(
                *{"limits": (Slice, "apply"), "intent": (Slice, "remember"), "home": (Home, "_enable")}[step],
                refuse,
            )
            with pytest.raises(CgroupError, match="the first error"):
                driver.supervisor.start(Launch(bot_id="bot"), Order(["true"], ENV, procs=-1), driver)
        (left,) = driver.supervisor.home.ownerless()
        left.remove()
        driver.supervisor.home.settle()
    finally:
        driver.supervisor.close()


def test_a_slice_whose_packet_rules_cannot_be_made_is_not_waited_for_twice(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def refuse(*_: object, **__: object) -> None:
        raise NetworkError("the lock of packet rules is held")

    def remove(_: Slice, within: float = WITHIN_S) -> None:
        waited.append(within)
        refuse()

    driver = Driver(home, tmp_path, in_process=True)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Slice, "apply", refuse)
            patch.setattr(Slice, "remove", remove)
            with pytest.raises(NetworkError):
                driver.supervisor.start(Launch(bot_id="bot"), Order(["true"], ENV, procs=-1), driver)
        (left,) = driver.supervisor.home.ownerless()
        left.remove()
    finally:
        driver.supervisor.close()
    assert waited == [0]
