"""How cgroups are mounted here, and where slices would be made. Nothing is made or moved."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from swarmcg.cgroup.files import read_text
from swarmcg.cgroup.find import check_alone, find_home, find_homes
from swarmcg.cgroup.hierarchy import CONTROLLERS, Hierarchy
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.systemd import manager
from swarmcg.doctor.seen import Cgroups, HomeSeen
from swarmcg.errors import SwarmcgError
from swarmcg.resources import Abilities
from swarmcg.supervisor.unit import find_unit

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["look_at_cgroups", "look_at_home", "user_manager"]

_INITIAL: Final = {"cgroup": "cgroup:[4026531835]", "pid": "pid:[4026531836]"}
"""PROC_CGROUP_INIT_INO and PROC_PID_INIT_INO (include/linux/proc_ns.h)."""
_ENOUGH: Final = 64


def look_at_cgroups(seen: Hierarchy) -> Cgroups:
    """The hierarchy, with what only doctor asks about."""
    return Cgroups(
        mode=seen.mode,
        mount=seen.mount,
        root=seen.root,
        options=seen.options,
        writable=seen.writable,
        own=seen.own,
        name=_own_name(),
        v1=seen.v1,
        files=_files(seen),
        namespace=_has_own("cgroup"),
        pid_namespace=_has_own("pid"),
    )


def _own_name() -> str | None:
    with contextlib.suppress(OSError):
        lines = read_text("/proc/self/cgroup").splitlines()
        return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    return None


def _has_own(namespace: str) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/ns/{namespace}") != _INITIAL[namespace]
    return False


def _files(seen: Hierarchy) -> frozenset[str] | None:
    """The files that cgroups here have, all taken together: of our own, and of some at the top."""
    found: set[str] = set()
    for directory in _some_cgroups(seen):
        with contextlib.suppress(OSError):
            names = os.listdir(directory)
            found.update(names if "cgroup.type" in names else ())  # the root has other files
    return frozenset(found) or None


def _some_cgroups(seen: Hierarchy) -> Iterator[str]:
    if seen.own is not None:
        yield seen.own
    if seen.mount is not None:
        with contextlib.suppress(OSError), os.scandir(seen.mount) as entries:
            yield from islice((e.path for e in entries if e.is_dir(follow_symlinks=False)), _ENOUGH)


def look_at_home(explicit: str | None, seen: Hierarchy) -> HomeSeen:
    """The home that a start would use, or what stands in its way and what its controllers would be all the same."""
    unit = find_unit() if explicit is None else None
    abilities = None
    try:
        home = unit.home if unit else find_home(explicit, starts=False, hierarchy=lambda: seen)
        abilities = home.abilities()
        homes = [home, *find_homes(explicit, hierarchy=lambda: seen)]
        if explicit is None and unit is None:
            check_alone(home)
    except SwarmcgError as e:
        why = f"{e.headline}: {e.reason}" if e.reason else e.headline
        return _homeless(why, e.remedy, abilities or _abilities(_grounds(seen), seen))
    except OSError as e:
        why, remedy = f"The cgroups cannot be looked at: {e}", "See what keeps this user from it."
        return _homeless(why, remedy, abilities or _abilities(_grounds(seen), seen))
    return HomeSeen(
        path=home.path,
        to_come=home.to_come,
        missing=explicit is not None and not os.path.isdir(home.path),
        served=unit.served() if unit else None,
        abilities=abilities,
        ownerless=_ownerless({home.path: home for home in homes}.values()),
    )


def _homeless(why: str, remedy: str | None, abilities: Abilities) -> HomeSeen:
    return HomeSeen(path=None, why=why, remedy=remedy, abilities=abilities, ownerless=None)


def _grounds(seen: Hierarchy) -> str | None:
    """Where a home would be if something were mended: below the user's own manager, or below the top."""
    return (user_manager(seen) if os.geteuid() else None) or seen.mount


def user_manager(seen: Hierarchy) -> str | None:
    """The cgroup of this user's systemd, if it runs."""
    if seen.mount is None:
        return None
    top = manager(seen.mount).top
    return top if os.path.isdir(top) else None


def _abilities(grounds: str | None, seen: Hierarchy) -> Abilities:
    if grounds is not None:
        with contextlib.suppress(SwarmcgError):
            return Home(path=grounds, hierarchy=seen, ours=False).abilities()
    return Abilities(mode=seen.mode, lacking={name: seen.lack(name) for name in CONTROLLERS})


def _ownerless(homes: Iterable[Home]) -> tuple[str, ...] | None:
    """Slices whose owner is gone; None where that could not be found out."""
    try:
        return tuple(path for home in homes for path in home.abandoned())
    except OSError:
        return None
