"""The types of the public API, as a user's type checker sees them. Checked by mypy for every platform, never run.

An error that a line must have is ignored by its code; strict mypy complains when the line has it no more.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import assert_type

from swarmcg import (
    GRACE_INTERVAL,
    Bandwidth,
    Bot,
    Config,
    DroneStarter,
    ExitReport,
    LinuxResources,
    Starter,
    StartError,
    SwarmcgError,
    WaitTimeout,
    __version__,
)
from swarmcg.bot import Reason, Row, StartedBot
from swarmcg.drone import abbreviate_bot_id
from swarmcg.elsewhere.bot import TreeBot
from swarmcg.testing import FakeBot, SwarmingServer, Task, small_bot_zip


def constants() -> None:
    assert_type(GRACE_INTERVAL, float)
    assert_type(__version__, str)


def resources() -> None:
    assert_type(LinuxResources.from_json("{}"), LinuxResources)
    assert_type(LinuxResources.from_json(b"{}"), LinuxResources)
    LinuxResources.from_json(3)  # type: ignore[arg-type]


def configs(path: Path, other: os.PathLike[str], limits: LinuxResources) -> None:
    """Whatever names a path is taken wherever one is."""
    Config("id", "/work")
    Config("id", path, limits, path)
    Config("id", other, None, other, grace_interval=1, drain="file", env={"A": "b"})
    Config("id", path, drain=["touch", "x"], on_unenforceable="report", lenient=frozenset({"memory.swap"}))
    Config("id", path, bandwidth=Bandwidth(egress_bps=1 << 20))
    Config("id")  # type: ignore[call-arg]
    Config("id", path, on_unenforceable="ignore")  # type: ignore[arg-type]
    Config("id", path, resources={"memory": 1})  # type: ignore[arg-type]
    Config("id", path, limits, path, 180.0)  # type: ignore[call-arg]
    config = Config("id", path)
    assert_type(config.work_directory, str | os.PathLike[str])
    config.bot_id = "other"  # type: ignore[misc]


def starters(path: Path, config: Config) -> None:
    assert_type(
        Starter("https://example.com", cache_directory=path, report_file=path, home=path).start(config),
        StartedBot,
    )
    with Starter("https://example.com") as starter:
        assert_type(starter, Starter)
    starter.close()


def drones(path: Path, starter: Starter) -> None:
    drone = DroneStarter(path, starter.start, Config, print)
    assert_type(drone.start("id"), Bot)
    assert_type(drone.sweep({"id"}, within=1.5), list[str])
    DroneStarter("/w", lambda _: FakeBot(), lambda bot_id, work: Config(bot_id, work))
    DroneStarter("/w", starter.start, lambda bot_id: Config(bot_id, "/w"))  # type: ignore[arg-type, misc]
    assert_type(abbreviate_bot_id("a-b"), str)


def bots(bot: Bot, started: StartedBot) -> None:
    assert_type(bot.wait(), ExitReport)
    assert_type(bot.wait(timeout=0.5), ExitReport)
    bot.drain()
    bot.drain(deadline=10)
    bot.terminate_or_kill(grace=0)
    bot.update(LinuxResources())
    bot.update({"memory": 1})  # type: ignore[arg-type]
    bot.terminate()  # type: ignore[attr-defined]
    started.terminate(1.5)
    assert_type(started.bot_id, str)
    assert_type(started.pid, int)
    assert_type(started.incarnation, str)
    assert_type(started.slice, str | None)
    assert_type(started.trouble, SwarmcgError | None)


def conforming(fake: FakeBot, without_slice: TreeBot) -> tuple[Bot, ...]:
    """Each can stand where a Bot is wanted; and what a Starter gives, where a StartedBot is."""
    started: StartedBot = without_slice
    return fake, without_slice, started


def fakes(bot: FakeBot) -> None:
    FakeBot(drain=lambda fake: fake.stop(), terminate=lambda fake: fake.stop_with(OSError()), bot_id="id")
    make: Callable[[], Bot] = FakeBot
    assert_type(bot.wait(), ExitReport)
    del make


def servers() -> None:
    with SwarmingServer() as server:
        assert_type(server.url, str)
        assert_type(server.give_task(["true"]), Task)
    assert_type(small_bot_zip("http://localhost"), bytes)


def reports(report: ExitReport) -> None:
    assert_type(report.reason, Reason)
    assert_type(report.exit_code, int | None)
    assert_type(report.signal, int | None)
    assert_type(report.duration_s, float | None)
    assert_type(report.cpu.user_s, float | None)
    assert_type(report.memory_peak_bytes, int | None)
    assert_type(report.leftovers.names, tuple[str, ...])
    assert_type(report.limits, dict[str, str])
    assert_type(report.unenforced, tuple[Row, ...])
    assert_type(report.to_json(), bytes)
    assert_type(ExitReport.from_json(b""), ExitReport)
    report.reason = "exited"  # type: ignore[misc]


def failures(bot: Bot) -> None:
    try:
        bot.wait(0)
    except WaitTimeout as e:
        timeout: TimeoutError = e
        assert_type(e.path, str | None)
        assert_type(e.errno, int | None)
        assert_type(e.cause, str | None)
        assert_type(e.remedy, str | None)
        del timeout
    except StartError as e:
        assert_type(e.step, str | None)
        error: SwarmcgError = e
        del error
