"""What every Bot does, be it a fake or a process in a slice.

A tier gives two fixtures: `obedient` starts a bot that ends with status 0 when it is drained or terminated,
`deaf` one that ends only when it is killed.
"""

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from swarmcg.bot import Bot, ExitReport
from swarmcg.errors import UpdateError, WaitTimeout
from swarmcg.resources import LinuxResources

__all__ = [
    "test_a_bot_runs_until_it_is_asked_to_end",
    "test_a_drained_bot_has_exited",
    "test_a_missed_deadline_goes_on_to_terminate",
    "test_a_smaller_grace_shortens_the_one_that_runs",
    "test_a_terminated_bot_says_so",
    "test_after_the_end_everything_is_harmless",
    "test_after_the_end_there_is_nothing_to_update",
    "test_asking_again_and_again_sees_the_end",
    "test_every_thread_gets_the_same_report",
    "test_one_that_does_not_hear_is_killed_after_its_grace",
]

LONG_S = 60.0
Start = Callable[[], Bot]


def test_a_bot_runs_until_it_is_asked_to_end(obedient: Start) -> None:
    bot = obedient()
    assert isinstance(bot, Bot)
    for timeout in (0, 0.01):
        with pytest.raises(WaitTimeout) as caught:
            bot.wait(timeout)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.remedy


def test_a_drained_bot_has_exited(obedient: Start) -> None:
    bot = obedient()
    bot.drain()
    report = bot.wait(LONG_S)
    assert (report.reason, report.exit_code, report.signal) == ("exited", 0, None)


def test_asking_again_and_again_sees_the_end(obedient: Start) -> None:
    bot = obedient()
    bot.drain()
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        with contextlib.suppress(WaitTimeout):
            assert bot.wait(0).reason == "exited"
            return
        time.sleep(0.01)
    pytest.fail("its end was not seen")


def test_a_terminated_bot_says_so(obedient: Start) -> None:
    bot = obedient()
    bot.terminate_or_kill(LONG_S)
    report = bot.wait(0)  # terminate_or_kill has seen the end
    assert (report.reason, report.exit_code, report.signal) == ("terminated", 0, None)


def test_one_that_does_not_hear_is_killed_after_its_grace(deaf: Start) -> None:
    bot = deaf()
    bot.terminate_or_kill(0.05)
    report = bot.wait(0)
    assert (report.reason, report.exit_code, report.signal) == ("killed-after-grace", None, 9)


def test_a_missed_deadline_goes_on_to_terminate(obedient: Start, deaf: Start) -> None:
    bot = deaf()
    bot.drain(0.05)
    with pytest.raises(WaitTimeout):
        bot.wait(0.2)
    bot.terminate_or_kill(0)
    assert bot.wait(0).reason == "killed-after-grace"
    other = obedient()
    other.drain(LONG_S)
    assert other.wait(LONG_S).reason == "exited"


def test_a_smaller_grace_shortens_the_one_that_runs(deaf: Start) -> None:
    bot = deaf()
    patient = threading.Thread(target=bot.terminate_or_kill, args=(1000,))
    patient.start()
    bot.terminate_or_kill(0.05)
    patient.join(LONG_S)
    assert not patient.is_alive()
    assert bot.wait(0).reason == "killed-after-grace"


def test_after_the_end_everything_is_harmless(obedient: Start) -> None:
    bot = obedient()
    bot.terminate_or_kill(LONG_S)
    report = bot.wait(0)
    bot.terminate_or_kill()
    bot.terminate_or_kill(0)
    bot.drain()
    bot.drain(0)
    assert bot.wait() == bot.wait(0) == report


def test_after_the_end_there_is_nothing_to_update(obedient: Start) -> None:
    """Nobody may think that a limit is in force that is not."""
    bot = obedient()
    bot.terminate_or_kill(LONG_S)
    with pytest.raises(UpdateError) as caught:
        bot.update(LinuxResources())
    assert caught.value.remedy
    assert caught.value.in_force == {}


def test_every_thread_gets_the_same_report(obedient: Start) -> None:
    bot = obedient()
    reports: list[ExitReport] = []
    waiting = [threading.Thread(target=lambda: reports.append(bot.wait(LONG_S))) for _ in range(4)]
    for thread in waiting:
        thread.start()
    bot.terminate_or_kill(LONG_S)
    for thread in waiting:
        thread.join(LONG_S)
    assert reports == [bot.wait(0)] * 4
