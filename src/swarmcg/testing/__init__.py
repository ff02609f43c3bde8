"""For the tests of those who use swarmcg: a bot that is none, and a Swarming server on loopback, with a small bot
and one of the stock bot's shape.

The names are resolved on first use, so that :class:`FakeBot` alone does not load an HTTP server.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarmcg.testing.fake_bot import FakeBot as FakeBot
    from swarmcg.testing.hooks import NO_CIPD as NO_CIPD
    from swarmcg.testing.package import (
        STOCK_PACE as STOCK_PACE,
        Pace as Pace,
        Package as Package,
        small_bot_version as small_bot_version,
        small_bot_zip as small_bot_zip,
        stock_shaped_bot as stock_shaped_bot,
    )
    from swarmcg.testing.server import SwarmingServer as SwarmingServer
    from swarmcg.testing.tasks import Event as Event, KnownBot as KnownBot, Task as Task

_HOMES = {
    "Event": "tasks",
    "FakeBot": "fake_bot",
    "KnownBot": "tasks",
    "NO_CIPD": "hooks",
    "STOCK_PACE": "package",
    "Pace": "package",
    "Package": "package",
    "SwarmingServer": "server",
    "Task": "tasks",
    "small_bot_version": "package",
    "small_bot_zip": "package",
    "stock_shaped_bot": "package",
}

__all__ = [*_HOMES]  # noqa: PLE0604  the names above


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    from importlib import import_module  # noqa: PLC0415  only when a name is first used

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
