"""Starts every bot in a cgroup v2 slice of its own, and proves that nothing is left of it.

The public names are resolved on first use (PEP 562), so that importing the package costs next to nothing.
"""

TYPE_CHECKING = False  # typing itself would cost tens of milliseconds
if TYPE_CHECKING:
    from swarmcg.bot import (
        GRACE_INTERVAL as GRACE_INTERVAL,
        Bandwidth as Bandwidth,
        Bot as Bot,
        Config as Config,
        ExitReport as ExitReport,
    )
    from swarmcg.drone import DroneStarter as DroneStarter
    from swarmcg.errors import (
        BotCodeError as BotCodeError,
        CgroupError as CgroupError,
        ConfigError as ConfigError,
        HomeError as HomeError,
        NetworkError as NetworkError,
        OwnerLostError as OwnerLostError,
        ResourcesError as ResourcesError,
        StartError as StartError,
        StateError as StateError,
        StuckError as StuckError,
        SwarmcgError as SwarmcgError,
        UnenforceableError as UnenforceableError,
        UpdateError as UpdateError,
        WaitTimeout as WaitTimeout,
    )
    from swarmcg.resources import LinuxResources as LinuxResources
    from swarmcg.starter import Starter as Starter

__version__ = "0.1.0"

_HOMES = {
    "GRACE_INTERVAL": "bot",
    "Bandwidth": "bot",
    "Bot": "bot",
    "Config": "bot",
    "DroneStarter": "drone",
    "ExitReport": "bot",
    "LinuxResources": "resources",
    "Starter": "starter",
} | dict.fromkeys(
    (
        "BotCodeError",
        "CgroupError",
        "ConfigError",
        "HomeError",
        "NetworkError",
        "OwnerLostError",
        "ResourcesError",
        "StartError",
        "StateError",
        "StuckError",
        "SwarmcgError",
        "UnenforceableError",
        "UpdateError",
        "WaitTimeout",
    ),
    "errors",
)

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  the names above


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    from importlib import import_module  # noqa: PLC0415  only when a name is first used

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
