"""How bots end, and what their reports say of it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcg.bot import Bot
from swarmcg.errors import WaitTimeout
from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.launch import Launch
from tests.host.engine import ENV, SOON_S, Driver, Engine, slices, until

PATIENT = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done"
DEAF = "trap '' TERM; echo ready; while :; do sleep 1000; done"


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


@pytest.mark.parametrize("status", [0, 3, 137, 143, 255])
def test_an_exit_status_is_told_as_it_is(engine: Engine, home: Path, status: int) -> None:
    report = engine.start("/bin/sh", "-c", f"exit {status}").wait(SOON_S)
    assert (report.reason, report.exit_code, report.signal) == ("exited", status, None)
    assert report.reason_evidence == "none"
    assert slices(home) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP])
def test_a_signal_from_outside_is_told_by_its_number(engine: Engine, number: int) -> None:
    bot = engine.start("sleep", "1000")
    os.kill(bot.pid, number)
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code, report.signal) == ("signaled", None, number)


def test_the_report_is_in_the_journal_before_wait_returns_and_the_slice_is_gone(
    engine: Engine, home: Path
) -> None:
    bot = engine.start("true", bot_id="one")
    report = bot.wait(SOON_S)
    assert engine.reports() == [report]
    assert slices(home) == []
    assert report.bot_id == "one"
    assert report.incarnation == bot.incarnation
    assert report.duration_s is not None
    assert 0 <= report.duration_s < SOON_S
    assert report.cpu.user_s is not None
    assert report.memory_peak_bytes is None or report.memory_peak_bytes > 0  # absent is null, never 0


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
@pytest.mark.parametrize("adopted", [False, True])
def test_a_step_of_the_clock_changes_no_duration(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, adopted: bool, step: float
) -> None:
    driver = Driver(home, tmp_path, in_process=True)
    clock = time.time
    try:
        driver.supervisor.start(
            Launch(bot_id="bot", grace=SOON_S), Order(["sleep", "0.1"], ENV, procs=-1, service=True), driver
        )
        driver.turn_until(lambda: driver.began)
        main = driver.began[0].main
        assert main is not None
        monkeypatch.setattr(time, "time", lambda: clock() + step)
        if adopted:
            before, driver = driver, Driver(home, tmp_path, in_process=True)
            before.supervisor.close()
            main.close()
            (held,) = driver.supervisor.home.ownerless()
            driver.supervisor.adopt(held, driver)
        driver.turn_until(lambda: driver.ends)
        if adopted:
            os.waitpid(main.pid, 0)
    finally:
        driver.supervisor.close()
    duration = driver.ends[0][0].duration_s
    assert duration is not None
    assert 0.05 < duration < SOON_S


def test_a_bot_that_obeys_sigterm_is_terminated(engine: Engine) -> None:
    bot = engine.start("sleep", "1000")
    bot.terminate_or_kill(SOON_S)
    report = bot.wait()
    assert (report.reason, report.signal, report.leftovers.count) == ("terminated", signal.SIGTERM, 0)


def test_a_bot_that_does_not_is_killed_after_its_grace(engine: Engine) -> None:
    bot = engine.sh(DEAF, grace=0.1)
    bot.terminate_or_kill()
    report = bot.wait()
    assert (report.reason, report.signal) == ("killed-after-grace", signal.SIGKILL)
    assert "sh" in report.leftovers.names


def test_a_grace_of_zero_kills_at_once(engine: Engine) -> None:
    bot = engine.sh("trap 'exit 0' TERM; echo ready; while :; do :; done")
    bot.terminate_or_kill(0)
    assert bot.wait().reason in {"killed-after-grace", "terminated"}


def test_a_bot_that_ends_by_itself_after_terminate_began_keeps_its_status(engine: Engine) -> None:
    bot = engine.sh("trap 'exit 42' TERM; echo ready; while :; do sleep 0.02; done")
    bot.terminate()
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code) == ("terminated", 42)


def test_the_rest_of_a_terminated_bot_keeps_its_grace(engine: Engine) -> None:
    child = "trap 'sleep 0.2; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
    bot = engine.sh(f"trap 'exit 1' TERM; sh -c \"{child}\" & while :; do sleep 0.02; done")
    bot.terminate_or_kill(SOON_S)
    report = bot.wait()
    assert (report.reason, report.exit_code, report.leftovers.count) == ("terminated", 1, 0)


def test_a_stopped_bot_hears_sigterm(engine: Engine) -> None:
    bot = engine.sh(PATIENT)
    os.kill(bot.pid, signal.SIGSTOP)
    bot.terminate_or_kill(SOON_S)
    assert (bot.wait().reason, bot.wait().exit_code) == ("terminated", 0)


def test_a_bot_that_others_froze_hears_sigterm(engine: Engine) -> None:
    bot = engine.sh(PATIENT)
    Path(bot.slice, "cgroup.freeze").write_text("1")
    bot.terminate_or_kill(SOON_S)
    assert (bot.wait().reason, bot.wait().exit_code) == ("terminated", 0)


def test_drain_by_signal_reaches_the_main_process_alone(engine: Engine) -> None:
    child = "trap 'echo child heard it' TERM; while :; do sleep 0.02; done"
    bot = engine.sh(f"sh -c \"{child}\" & trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done")
    bot.drain()
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code) == ("exited", 9)
    assert report.leftovers.count >= 1  # the child did not hear of it and was killed


def test_drain_by_file_makes_it_beside_the_work_directory_and_takes_it_away(
    engine: Engine, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    file = tmp_path / "work.drain"
    bot = engine.sh(
        f"trap '' TERM; echo ready; while [ ! -e {file} ]; do sleep 0.02; done; exit 4",
        drain="file",
        work_directory=str(work),
    )
    bot.drain()
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code) == ("exited", 4)
    assert not file.exists()


def test_drain_by_file_and_signal_does_both(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "work.drain"
    (tmp_path / "work").mkdir()
    bot = engine.sh(
        f"trap 'test -e {file} && exit 8; exit 7' TERM; echo ready; while :; do sleep 0.02; done",
        drain="file+sigterm",
        work_directory=str(tmp_path / "work"),
    )
    bot.drain()
    assert bot.wait(SOON_S).exit_code == 8


def test_drain_by_command_runs_it_inside_the_slice(engine: Engine, tmp_path: Path) -> None:
    where = tmp_path / "where"
    bot = engine.sh(
        f"echo ready; while [ ! -s {where} ]; do sleep 0.02; done; exit 5",
        drain=["/bin/sh", "-c", f"cat /proc/self/cgroup >{where}.new; mv {where}.new {where}"],
    )
    bot.drain()
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code) == ("exited", 5)
    assert f"/{os.path.basename(bot.slice)}/main" in where.read_text()


@pytest.mark.parametrize("drain", [["/nonexistent"], "file"])
def test_a_drain_that_fails_leaves_the_bot_to_its_deadline(
    engine: Engine, tmp_path: Path, drain: str | list[str]
) -> None:
    bot = engine.sh(
        PATIENT, drain=drain, work_directory=str(tmp_path / "absent" / "work") if drain == "file" else None
    )
    bot.drain(0.1)
    assert bot.wait(SOON_S).reason == "terminated"


def test_a_missed_drain_deadline_goes_on_to_terminate(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    bot = engine.sh(PATIENT, drain="file", work_directory=str(tmp_path / "work"))
    bot.drain(0.1)
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code) == ("terminated", 0)
    assert not (tmp_path / "work.drain").exists()


def test_terminate_cuts_a_drain_short(engine: Engine) -> None:
    bot = engine.sh(DEAF)
    bot.drain(1000)
    bot.terminate_or_kill(0)
    assert bot.wait().reason == "killed-after-grace"


def test_everything_is_harmless_after_the_end(engine: Engine) -> None:
    bot = engine.start("true")
    report = bot.wait(SOON_S)
    bot.drain()
    bot.terminate()
    bot.terminate_or_kill()
    bot.terminate_or_kill(0)
    assert bot.wait() is report
    assert bot.wait(0) is report
    assert engine.reports() == [report]


def test_a_second_terminate_never_lengthens_the_grace_and_a_smaller_one_shortens_it(engine: Engine) -> None:
    bot = engine.sh(DEAF)
    blocked = threading.Thread(target=bot.terminate_or_kill, args=(1000,))
    blocked.start()
    bot.terminate(2000)
    bot.terminate_or_kill(0.1)
    blocked.join(SOON_S)
    assert not blocked.is_alive()
    assert bot.wait().reason == "killed-after-grace"


def test_many_threads_get_the_same_report(engine: Engine) -> None:
    bot = engine.start("sleep", "1000")
    got = []
    threads = [threading.Thread(target=lambda: got.append(bot.wait(SOON_S))) for _ in range(8)]
    threads += [threading.Thread(target=bot.terminate_or_kill, args=(SOON_S,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert [id(report) for report in got] == [id(bot.wait())] * 8
    assert engine.reports() == [bot.wait()]


def test_starts_from_many_threads_are_all_separate(engine: Engine, home: Path) -> None:
    codes: dict[int, int | None] = {}

    def one(code: int) -> None:
        codes[code] = engine.start("/bin/sh", "-c", f"exit {code}", bot_id=f"b{code}").wait(SOON_S).exit_code

    threads = [threading.Thread(target=one, args=(code,)) for code in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert codes == {code: code for code in range(16)}
    assert len(engine.reports()) == 16
    assert slices(home) == []


@pytest.mark.parametrize("timeout", [0, 0.05, -1])
def test_a_wait_past_its_time_is_a_timeout_and_the_bot_goes_on(engine: Engine, timeout: float) -> None:
    bot = engine.start("sleep", "1000")
    with pytest.raises(WaitTimeout) as caught:
        bot.wait(timeout)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(bot, Bot)
    os.kill(bot.pid, 0)


def test_a_bot_that_nobody_refers_to_goes_on(engine: Engine, tmp_path: Path) -> None:
    engine.start("/bin/sh", "-c", f"sleep 0.2; echo done >{tmp_path}/out")
    engine._bots.clear()
    until((tmp_path / "out").exists)
    until(engine.reports)
    assert engine.reports()[0].exit_code == 0


def test_closing_the_connection_ends_its_bots_and_returns_when_they_are_gone(
    engine: Engine, home: Path
) -> None:
    bot = engine.sh(PATIENT)
    engine.connection.close(SOON_S)
    assert slices(home) == []
    assert [report.reason for report in engine.reports()] == ["terminated"]
    assert bot.wait(SOON_S).exit_code == 0


def test_the_report_file_gets_the_same_report(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    report = engine.start("true", report_file=str(file)).wait(SOON_S)
    assert file.read_bytes() == report.to_json() + b"\n"
    assert list(tmp_path.glob("*.partial")) == []


def test_a_report_file_that_cannot_be_written_loses_nothing_else(engine: Engine, home: Path) -> None:
    bot = engine.start("true", report_file="/nonexistent/report.json")
    report = bot.wait(SOON_S)
    assert bot.trouble is not None
    assert bot.trouble.path == "/nonexistent/report.json"
    assert engine.reports() == [report]
    assert slices(home) == []


def test_started_at_and_duration_belong_to_the_main_process(engine: Engine) -> None:
    before = time.time()
    report = engine.start("sleep", "0.1").wait(SOON_S)
    assert report.started_at is not None
    assert report.started_at.endswith("Z")
    assert report.duration_s is not None
    assert 0.05 < report.duration_s < time.time() - before + 1
