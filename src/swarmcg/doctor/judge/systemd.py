"""Verdicts on hosts that systemd manages."""

from collections.abc import Iterator
from typing import Final

from swarmcg.doctor.check import Check, fail, ok, warn
from swarmcg.doctor.seen import Linux

__all__ = ["bots_unit", "user_manager", "version"]

_MEASURED: Final = 252
_DELEGATES_CPUSET: Final = 244
_WANTED: Final = ("cpu", "cpuset", "io", "memory", "pids")


def version(host: Linux) -> Iterator[Check]:
    """What swarmcg relies on was measured with 252 and 257."""
    if host.systemd is None:
        yield ok("systemd", "systemd does not run here")
    elif host.systemd.version is None:
        yield warn("systemd", "systemctl does not tell systemd's version within 3 s", "systemctl --version")
    elif host.systemd.version < _MEASURED:
        lost = "; it delegates no cpuset (244)" if host.systemd.version < _DELEGATES_CPUSET else ""
        why = f"systemd {host.systemd.version} is older than {_MEASURED}, the oldest that swarmcg was tried with{lost}"
        yield warn("systemd", why, "Upgrade to Debian 12 or another distribution with systemd 252 or later.")
    else:
        yield ok("systemd", f"systemd {host.systemd.version}")


def user_manager(host: Linux) -> Iterator[Check]:
    """An ordinary user's bots get what the user's own manager was given."""
    if host.systemd is None or not host.uid or host.cgroups.mode != "unified":
        return
    if host.systemd.delegated is None:
        why = "no systemd manager runs for this user, so nothing can be delegated to it"
        yield warn("user-manager", why, f"loginctl enable-linger {host.uid}")
        return
    lacking = [name for name in _WANTED if name not in host.systemd.delegated]
    if lacking:
        cure = host.home.abilities.lacking.get(lacking[0])
        why = f"this user's systemd was not given {', '.join(lacking)}"
        yield warn("user-manager", why, cure.remedy if cure else None)
    else:
        yield ok("user-manager", f"this user's systemd has {', '.join(_WANTED)}")


def bots_unit(host: Linux) -> Iterator[Check]:
    """The unit whose cgroup outlives commands; bots run without it as well."""
    if host.systemd is None or host.uid:
        return
    unit = host.systemd.bots_unit
    loaded, active = unit.get("LoadState"), unit.get("ActiveState")
    name, without = (
        "swarmcg-bots.service",
        "nothing can be detached, and bots end with the command that started them",
    )
    if loaded is None:
        yield warn("bots-unit", f"systemctl does not tell of {name} within 3 s", f"systemctl status {name}")
    elif loaded == "not-found":
        install = (
            "Install swarmcg's Debian package, or copy "
            f"packaging/systemd/{name} to /etc/systemd/system, with the path of swarmcg in it; then: "
            "systemctl daemon-reload && systemctl enable --now swarmcg-bots"
        )
        yield warn("bots-unit", f"{name} is not installed: {without}", install)
    elif loaded != "loaded":
        cure = f"systemctl unmask {name} && systemctl enable --now {name}; systemctl status {name} tells more"
        yield warn("bots-unit", f"{name} is {loaded}: {without}", cure)
    elif active != "active":
        yield warn("bots-unit", f"{name} is {active}: {without}", f"systemctl start {name}")
    elif unit.get("Delegate") == "no":
        why = f"{name} runs without Delegate=yes: systemd may change and remove its cgroups"
        yield fail("bots-unit", why, f"Put the unit of the package in its place: systemctl revert {name}")
    elif host.home.served is False:
        why = f"{name} is active, and none of our processes serves it: how bots in it end may be lost"
        yield warn("bots-unit", why, f"systemctl reload {name}")
    else:
        yield ok("bots-unit", f"{name} runs in {unit.get('ControlGroup') or 'no cgroup'}")
