"""Where the home is, the cgroup below which slices are made.

In this order: told explicitly; inside of the slice of ours that we live in, if we do; our own cgroup,
if it was delegated to us and nobody else is in it; a transient scope, asked of systemd where that manages the
hierarchy; ``swarmcg`` below the hierarchy's root, as root and without systemd; the same on a hybrid host, where
most limits are not to be had. Nothing outside of a delegated subtree is ever written, and no process is moved
unless the caller said that it may be.
"""

import contextlib
import errno
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from swarmcg.cgroup import systemd
from swarmcg.cgroup.enclosing import enclosing_slice, home_inside
from swarmcg.cgroup.files import cgroup_errors, read_text, write_line
from swarmcg.cgroup.hierarchy import Hierarchy, look
from swarmcg.cgroup.home import Home, is_marked
from swarmcg.errors import HomeError

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["check_alone", "find_home", "find_homes", "home_of", "needs_scope"]

_DELEGATED: Final = ("trusted.delegate", "user.delegate")


def find_home(
    explicit: str | None = None,
    *,
    enter: bool = False,
    starts: bool = True,
    hierarchy: Callable[[], Hierarchy] = look,
    scope: Callable[[systemd.Manager], str] = systemd.transient_scope,
) -> Home:
    """The home for this process. Makes nothing, except that ``enter`` moves this process into a leaf of its
    own cgroup, or of a ``scope`` that systemd makes for it. Who ``starts`` nothing there may live in it.

    Raises HomeError when there is none, with what would bring one.
    """
    seen = hierarchy()
    mount = _mount(seen)
    if explicit is not None:
        return _explicit(explicit, seen)
    _check_writable(seen)
    outer = enclosing_slice(seen)
    if outer is not None:
        return Home(path=home_inside(outer), hierarchy=seen, ours=True)
    if needs_scope(explicit, hierarchy=lambda: seen):
        if not starts:
            path = f"{systemd.manager(mount).directory}/swarmcg.scope"
            return Home(path=path, hierarchy=seen, ours=False, to_come=True)
        return _scope(seen, enter=enter, ask=scope, hierarchy=hierarchy)
    if seen.own is not None and _delegated(seen.own, seen):
        as_it_is = Home(path=seen.own, hierarchy=seen, ours=False)
        return _own_cgroup(seen.own, seen, enter=enter) if starts else as_it_is
    return _top(mount, seen)


def needs_scope(explicit: str | None = None, *, hierarchy: Callable[[], Hierarchy] = look) -> bool:
    """Whether a scope must be asked of systemd: it manages the hierarchy, we live in no slice of ours, and our own
    cgroup is not delegated, or is and others live in it.
    """
    seen = hierarchy()
    if explicit is not None or seen.mount is None or not (seen.systemd and seen.mode == "unified"):
        return False
    if enclosing_slice(seen) is not None:
        return False
    return seen.own is None or not _delegated(seen.own, seen) or bool(_others(seen.own))


def check_alone(home: Home) -> None:
    """Whether a start could use a home that was found by who starts nothing: moves nobody.

    Raises HomeError where that home is our own cgroup and others live in it, as the start would.
    """
    if home.path == home.hierarchy.own and not home.ours:
        _check_others(home.path)


def find_homes(explicit: str | None = None, *, hierarchy: Callable[[], Hierarchy] = look) -> list[Home]:
    """Every place where slices of this user may be, for whoever looks for them; makes nothing. Raises HomeError."""
    seen = hierarchy()
    mount = _mount(seen)
    homes = [find_home(explicit, starts=False, hierarchy=lambda: seen)]
    if explicit is None and seen.systemd and seen.mode == "unified":
        scopes = systemd.manager(mount).scopes()
        homes += [Home(path=path, hierarchy=seen, ours=False) for path in scopes if path != homes[0].path]
    return [*homes, *(inner for home in homes for inner in home.inside())]


def home_of(path: str, intent: Mapping[str, Any] | None) -> Home:
    """The home that the slice at a path was made in, by its intent, as far as its successor, and whoever changes its
    limits, needs it.
    """
    ours = intent is not None and intent.get("ours") is True
    return Home(path=os.path.dirname(path), hierarchy=look(own=False), ours=ours)


def _mount(seen: Hierarchy) -> str:
    if seen.mount is not None:
        return seen.mount
    raise HomeError(
        "There is no cgroup version 2 on this host",
        cause="cgroup2 is not mounted" + (", version 1 is" if seen.v1 else ""),
        remedy=f"mount -t cgroup2 none /sys/fs/cgroup, or boot with {seen.pure()}.",
    )


def _check_writable(seen: Hierarchy) -> None:
    if not seen.writable:
        raise HomeError(
            "The cgroup file system is read-only",
            path=seen.mount,
            errno=errno.EROFS,
            cause="it is mounted read-only, as in a container",
            remedy=f"mount -o remount,rw {seen.mount}, or start the container with a writable cgroup mount.",
        )


def _scope(
    seen: Hierarchy,
    *,
    enter: bool,
    ask: Callable[[systemd.Manager], str],
    hierarchy: Callable[[], Hierarchy],
) -> Home:
    """A scope of this process's own, with this process in a leaf of it."""
    if not enter:
        raise HomeError(
            "systemd manages this hierarchy and has not delegated a part of it",
            path=seen.own or seen.mount,
            cause="a scope would have to be made for this process, and the caller did not allow moving it",
            remedy="Pass enter_home=True to move this process into a scope of its own, or name another home.",
        )
    name = ask(systemd.manager(_mount(seen)))
    now = hierarchy()
    if now.own is None or os.path.basename(now.own) != name:
        raise HomeError(
            "systemd made a scope for this process, but the process is not in it",
            path=now.own,
            value=name,
            remedy="See what moves processes on this host, or name a home with --home.",
        )
    return _own_cgroup(now.own, now, enter=True)


def _explicit(path: str, seen: Hierarchy) -> Home:
    assert seen.mount is not None  # noqa: S101  checked by the caller
    path = os.path.realpath(path)
    if not f"{path}/".startswith(f"{os.path.realpath(seen.mount)}/"):
        raise HomeError(
            "The home is not a cgroup",
            path=path,
            cause=f"cgroup2 is mounted at {seen.mount}",
            remedy=f"Name a directory below {seen.mount}.",
        )
    if os.path.isdir(path):
        return Home(path=path, hierarchy=seen, ours=is_marked(path))
    if os.path.isdir(os.path.dirname(path)):
        return Home(path=path, hierarchy=seen, ours=True)
    raise HomeError(
        "The home does not exist, nor does the cgroup above it",
        path=path,
        errno=errno.ENOENT,
        remedy=f"mkdir -p {os.path.dirname(path)}",
    )


def _delegated(own: str, seen: Hierarchy) -> bool:
    """Whether our own cgroup was handed to us: by systemd's mark or word, or else by ownership."""
    assert seen.mount is not None  # noqa: S101  checked by the callers
    if os.path.realpath(own) == os.path.realpath(seen.mount) and not os.path.exists(f"{own}/cgroup.type"):
        return False  # the root of the real hierarchy is nobody's to hand over
    if any(_marked(own, name) for name in _DELEGATED):
        # Whoever runs below may have become another user since, for whom the mark was not made.
        return all(os.access(path, os.W_OK) for path in (own, f"{own}/cgroup.procs"))
    if not _belongs_to_us(own):
        return False
    # Everything below a user's manager belongs to the user, and is that manager's to write unless it says otherwise.
    who = systemd.manager(seen.mount)
    ours = not f"{own}/".startswith(f"{who.top}/")
    return ours or not seen.systemd or systemd.unit_is_delegated(who, os.path.basename(own))


def _marked(own: str, name: str) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(own, name) == b"1"
    return False


def _belongs_to_us(own: str) -> bool:
    uid = os.geteuid()
    if uid == 0:
        return False
    with contextlib.suppress(OSError):
        return os.stat(own).st_uid == uid and os.stat(f"{own}/cgroup.procs").st_uid == uid
    return False


def _own_cgroup(own: str, seen: Hierarchy, *, enter: bool) -> Home:
    _check_others(own)
    inside = str(os.getpid()) in read_text(f"{own}/cgroup.procs").split()
    if inside and not enter:
        raise HomeError(
            "Our own cgroup is delegated, but this process lives in it",
            path=own,
            cause="a cgroup that holds processes cannot hand controllers down, and the caller did not allow moving it",
            remedy="Pass enter_home=True to move this process into a leaf, or name another home.",
        )
    if inside:
        _enter(f"{own}/supervisor")
    return Home(path=own, hierarchy=seen, ours=False)


def _check_others(own: str) -> None:
    if others := _others(own):
        raise HomeError(
            "Our own cgroup is delegated, but others live in it",
            path=own,
            value=" ".join(sorted(others)[:8]),
            cause="a cgroup that holds processes cannot hand controllers down",
            # Without a word to systemd: what is delegated to us is ours to arrange, also where none runs.
            remedy=f"Start swarmcg with --home {shlex.quote(f'{own}/swarmcg')}, and first move them into a leaf beside "
            f"it: {_into_leaf(own, 'others')}",
        )


def _into_leaf(directory: str, name: str) -> str:
    """The words for a shell that leave a cgroup without processes; those that end meanwhile are passed over."""
    leaf, top = shlex.quote(f"{directory}/{name}"), shlex.quote(directory)
    return f"mkdir -p {leaf} && for p in $(cat {top}/cgroup.procs); do echo $p > {leaf}/cgroup.procs; done"


def _others(own: str) -> set[str]:
    return set(read_text(f"{own}/cgroup.procs").split()) - {str(os.getpid())}


def _enter(leaf: str) -> None:
    with cgroup_errors("This process could not be moved into a leaf of its cgroup", leaf):
        with contextlib.suppress(FileExistsError):
            os.mkdir(leaf)
        write_line(f"{leaf}/cgroup.procs", "0")


def _top(mount: str, seen: Hierarchy) -> Home:
    if os.geteuid() != 0:
        raise HomeError(
            "No cgroup is delegated to this user",
            path=seen.own or mount,
            errno=errno.EACCES,
            cause="only root may make cgroups at the top of the hierarchy",
            remedy="Run it as root, or where systemd's user manager runs."
            if seen.mode == "unified"
            else f"Boot with {seen.pure()} on the kernel command line, and have systemd's user manager run. Beside "
            "cgroup v1, root alone can start bots, without limits of memory, cpu, disks and tasks.",
        )
    if os.path.exists(f"{mount}/cgroup.type"):
        return _namespace_root(mount, seen)
    return Home(path=f"{mount}/swarmcg", hierarchy=seen, ours=True)


def _namespace_root(mount: str, seen: Hierarchy) -> Home:
    """The mount shows a cgroup namespace's root, as in a container: it may hold processes, and often does."""
    if not read_text(f"{mount}/cgroup.procs").split():
        return Home(path=f"{mount}/swarmcg", hierarchy=seen, ours=True)
    raise HomeError(
        "The container's own cgroup holds processes",
        path=f"{mount}/cgroup.procs",
        cause="a cgroup that holds processes cannot hand controllers down",
        remedy=f"Move them into a leaf first: {_into_leaf(mount, 'init')}",
    )
