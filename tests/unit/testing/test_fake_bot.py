"""A fake bot keeps what the protocol promises."""

import threading
from collections.abc import Callable

import pytest

from swarmcg.bot import Bot
from swarmcg.errors import UpdateError, WaitTimeout
from swarmcg.resources import LinuxResources, Pids
from swarmcg.testing import FakeBot


def nothing(_bot: FakeBot) -> None:
    """A bot that does not listen."""


def test_it_is_a_bot() -> None:
    bot: Bot = FakeBot()
    assert isinstance(bot, Bot)


def test_it_runs_until_it_is_stopped() -> None:
    bot = FakeBot(bot_id="a")
    with pytest.raises(TimeoutError) as caught:
        bot.wait(0)
    assert isinstance(caught.value, WaitTimeout)
    bot.stop()
    report = bot.wait(0)
    assert (report.bot_id, report.reason, report.exit_code, report.signal) == ("a", "exited", 0, None)
    assert report.duration_s is not None
    assert bot.wait() is report


def test_drain_ends_it_as_one_that_exited() -> None:
    bot = FakeBot()
    bot.drain()
    assert bot.wait(0).reason == "exited"


def test_terminate_ends_it_as_one_that_was_terminated() -> None:
    bot = FakeBot()
    bot.terminate_or_kill()
    assert bot.wait(0).reason == "terminated"


def test_the_functions_get_the_bot_and_may_leave_it_running() -> None:
    told: list[tuple[str, FakeBot]] = []

    def terminate(bot: FakeBot) -> None:
        told.append(("terminate", bot))
        bot.stop()

    bot = FakeBot(lambda b: told.append(("drain", b)), terminate)
    bot.drain()
    with pytest.raises(WaitTimeout):
        bot.wait(0)
    bot.terminate_or_kill()
    assert told == [("drain", bot), ("terminate", bot)]


def test_a_bot_that_does_not_listen_is_killed_after_its_grace() -> None:
    bot = FakeBot(terminate=nothing)
    bot.terminate_or_kill(grace=0)
    report = bot.wait(0)
    assert (report.reason, report.exit_code, report.signal) == ("killed-after-grace", None, 9)


def test_a_second_terminate_with_less_grace_shortens_the_first() -> None:
    begun = threading.Event()
    bot = FakeBot(terminate=lambda _: begun.set())
    first = threading.Thread(target=bot.terminate_or_kill)
    first.start()
    begun.wait(10)
    bot.terminate_or_kill(grace=0)
    first.join(10)
    assert not first.is_alive()


def test_a_missed_drain_deadline_goes_on_to_terminate() -> None:
    bot = FakeBot(drain=nothing)
    bot.drain(deadline=0.01)
    assert bot.wait(10).reason == "terminated"


def test_a_deadline_that_comes_while_somebody_waits_is_noticed() -> None:
    bot = FakeBot(drain=nothing)
    reasons: list[str] = []
    waiter = threading.Thread(target=lambda: reasons.append(bot.wait(10).reason))
    waiter.start()
    bot.drain(deadline=0)
    waiter.join(10)
    assert reasons == ["terminated"]


def test_a_drain_deadline_does_not_outlast_the_time_somebody_waits() -> None:
    bot = FakeBot(drain=nothing)
    bot.drain(deadline=1000)
    with pytest.raises(WaitTimeout):
        bot.wait(0.01)


def test_stop_with_has_every_wait_raise() -> None:
    bot = FakeBot()
    error = RuntimeError("lost")
    bot.stop_with(error)
    for _ in range(2):
        with pytest.raises(RuntimeError) as caught:
            bot.wait()
        assert caught.value is error


@pytest.mark.parametrize(
    "call",
    [
        FakeBot.stop,
        FakeBot.drain,
        FakeBot.terminate_or_kill,
        lambda bot: bot.stop_with(RuntimeError()),
        lambda bot: bot.drain(0),
        lambda bot: bot.terminate_or_kill(0),
    ],
)
def test_any_call_after_the_end_is_harmless(call: Callable[[FakeBot], None]) -> None:
    bot = FakeBot(drain=lambda _: pytest.fail("drained"), terminate=lambda _: pytest.fail("terminated"))
    bot.stop()
    report = bot.wait()
    call(bot)
    assert bot.wait(0) is report


def test_many_threads_see_one_end() -> None:
    bot = FakeBot()
    reports: list[object] = []
    waiters = [threading.Thread(target=lambda: reports.append(bot.wait(10))) for _ in range(8)]
    enders = [threading.Thread(target=end) for end in (bot.stop, bot.drain, bot.terminate_or_kill)]
    for thread in waiters + enders:
        thread.start()
    for thread in waiters + enders:
        thread.join(10)
    assert len(reports) == 8
    assert len(set(map(id, reports))) == 1


def test_updates_are_remembered_until_the_end() -> None:
    bot = FakeBot()
    first, second = LinuxResources(pids=Pids(limit=5)), LinuxResources()
    bot.update(first)
    bot.update(second)
    bot.stop()
    with pytest.raises(UpdateError):
        bot.update(first)
    assert bot.updates == [first, second]
