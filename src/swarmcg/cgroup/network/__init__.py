"""Limits on the packets of a slice: nftables tells them by the cgroup of their socket, HTB delays them, and a program
of the slice drops what comes too fast.

Each slice has one nftables table of its own, whose name holds the incarnation and whose comment says where
the slice and its HTB class are. So the kernel's own tables are the record: a table whose slice is gone is an
orphan, an HTB class of ours that no table names is one, too, and both go with the next call of any of these
functions. Every change is made under one lock of this host's swarmcg, so that nobody takes a half-made class
for an orphan.

pyroute2 is imported here on first use: that takes 160 to 200 ms, once. It has an event loop of its own, and a
thread runs one only: called by a coroutine, all of this is done in another thread, which is waited for.
"""

import contextlib
import errno
import fcntl
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import msgspec

from swarmcg.cgroup.hierarchy import look
from swarmcg.cgroup.network import policing
from swarmcg.cgroup.network.place import Label, Place, namespace_lack, orphaned, table_name
from swarmcg.errors import NetworkError
from swarmcg.flock import WITHIN_S, hold
from swarmcg.places import places
from swarmcg.resources import Networking, NetworkPlan
from swarmcg.resources.network import EGRESS, INGRESS

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

if TYPE_CHECKING:
    from swarmcg.cgroup.network.nft import Tables
    from swarmcg.cgroup.network.shaping import Shaper

__all__ = ["install", "missing", "orphans", "probe", "remove"]

_LOCK: Final = "network.lock"

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def _in_a_loop() -> bool:
    if "asyncio" not in sys.modules:  # it is slow to import, and no loop runs before somebody has
        return False
    import asyncio  # noqa: PLC0415  see above

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _apart(act: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """Does it in this thread, or in another one where this one's event loop runs."""

    @functools.wraps(act)
    def done(*args: _Given.args, **named: _Given.kwargs) -> _Found:
        if not _in_a_loop():
            return act(*args, **named)
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  only beside a loop

        with ThreadPoolExecutor(1) as other:
            return other.submit(act, *args, **named).result()

    return done


@_apart
def probe() -> Networking:
    """What this process can do for packets in its network namespace. Changes nothing, and needs no root to
    say so.
    """
    lack = namespace_lack(look())
    if lack is not None:
        return Networking(lack=lack)
    from swarmcg.cgroup.network import nft, shaping  # noqa: PLC0415  pyroute2 is slow to import

    lack = nft.lack()
    if lack is not None:
        return Networking(lack=lack)
    return msgspec.structs.replace(shaping.networking(), ingress=policing.lack())


@_apart
def install(rules: NetworkPlan, slice_path: str) -> None:
    """Puts exactly these rules in force for the slice, in place of any that it had, and reads them back.

    In one transaction: at no moment is the slice without the earlier rules or these. Raises NetworkError;
    then the earlier rules are in force, or, when the reading back failed, none.
    """
    place = Place.of(slice_path, look())
    with (
        _kernel("The limits on packets could not be put in force", slice_path) as (tables, shaper),
        _tidy(tables, shaper),
        policing.policed(rules.ingress, slice_path),
    ):
        shaped = shaper.add(rules.egress) if rules.egress is not None else None
        tables.put(Label(place=place, shaped=shaped), rules)


@_apart
def missing(slice_path: str, rules: NetworkPlan) -> Mapping[str, str]:
    """The fields of these rules, which were put in force for the slice, that are not any more, each with the reason:
    an interface that was taken away took its class along, or somebody else removed our table.

    Changes nothing and takes no lock. Only this network namespace is looked at. Raises NetworkError.
    """
    from swarmcg.cgroup.network.nft import Tables  # noqa: PLC0415  pyroute2 is slow to import
    from swarmcg.cgroup.network.refusal import network_errors  # noqa: PLC0415
    from swarmcg.cgroup.network.shaping import Shaper  # noqa: PLC0415

    with (
        network_errors("The limits on packets could not be looked at", slice_path),
        Tables() as tables,
        Shaper() as shaper,
    ):
        # Once more, since an update may put others in their place between the looks at table and class.
        return _missing(slice_path, rules, tables, shaper) and _missing(slice_path, rules, tables, shaper)


def _missing(slice_path: str, rules: NetworkPlan, tables: "Tables", shaper: "Shaper") -> Mapping[str, str]:
    name = table_name(slice_path)
    label = next((label for label in tables.labels() if label.name == name), None)
    if label is None:
        # The slice's program limits what is received, without nftables over shorter times alone.
        return {field: f"nftables has no table {name} any more" for field in rules.limits if field != INGRESS}
    if rules.egress is not None and (label.shaped is None or not shaper.holds(label.shaped, rules.egress)):
        why = "its HTB class is gone, or changed: an interface that goes away takes its classes along"
        return {EGRESS: f"{rules.egress.interface}: {why}"}
    return {}


@_apart
def remove(slice_path: str, within: float = WITHIN_S) -> None:
    """Takes away every rule of the slice, its HTB class, and a root qdisc that has no class any more. Harmless
    when there are none. Raises NetworkError, also when somebody holds the lock for longer than ``within`` seconds.
    """
    with (
        _kernel("The limits on packets could not be removed", slice_path, within=within) as (tables, shaper),
        _tidy(tables, shaper),
    ):
        policing.unpoliced(slice_path)
        tables.delete(table_name(slice_path))


@_apart
def orphans(*, end: bool) -> list[str]:
    """What is left of slices that are gone, named for people; with ``end``, it is removed.

    Who may not look at the packet filter, or has none, finds nothing.
    """
    try:
        with _kernel("The packet rules of lost slices could not be removed", None, change=end) as (
            tables,
            shaper,
        ):
            lost, classes = _lost(tables, shaper)
            if end:
                _end(tables, shaper)
            return [f"nftables table inet {label.name}" for label in lost] + classes
    except NetworkError as e:
        if e.errno in _NOTHING_TO_SEE:
            return []
        raise


_NOTHING_TO_SEE: Final = {
    errno.EPERM,
    errno.EACCES,
    errno.EOPNOTSUPP,
    errno.EPROTONOSUPPORT,
    errno.EAFNOSUPPORT,
    errno.EINVAL,
}


@contextlib.contextmanager
def _tidy(tables: "Tables", shaper: "Shaper") -> Iterator[None]:
    """Whatever becomes of the block, nothing that no living slice has is left afterwards."""
    try:
        yield
    finally:
        _end(tables, shaper)


def _lost(tables: "Tables", shaper: "Shaper") -> tuple[list[Label], list[str]]:
    hierarchy = look()
    labels = tables.labels()
    lost = [label for label in labels if orphaned(label, hierarchy)]
    used = {label.shaped for label in labels if label not in lost and label.shaped is not None}
    return lost, [str(shaped) for shaped in shaper.shaped() if shaped not in used]


def _end(tables: "Tables", shaper: "Shaper") -> None:
    lost, _ = _lost(tables, shaper)
    for label in lost:
        tables.delete(label.name)
    shaper.keep({label.shaped for label in tables.labels() if label.shaped is not None})


@contextlib.contextmanager
def _kernel(
    what: str, path: str | None, *, change: bool = True, within: float = WITHIN_S
) -> Iterator[tuple["Tables", "Shaper"]]:
    """The kernel's packet filter and traffic control, for one caller at a time. Who is not to ``change`` anything makes
    no lock either.
    """
    from swarmcg.cgroup.network.nft import Tables  # noqa: PLC0415  pyroute2 is slow to import
    from swarmcg.cgroup.network.refusal import network_errors  # noqa: PLC0415
    from swarmcg.cgroup.network.shaping import Shaper  # noqa: PLC0415

    with network_errors(what, path), Tables() as tables:
        tables.labels()  # refuses who may not do anything here, before there is a lock to be made
        with _locked(make=change, within=within), Shaper() as shaper:
            yield tables, shaper


@contextlib.contextmanager
def _locked(*, make: bool, within: float) -> Iterator[None]:
    """The lock of everybody who changes classes of ours; waits for it for at most ``within`` seconds.

    It is a file that nobody else may open: a lock on one that every program can open (a namespace's, say)
    could be held by a bot. Where it is not there and not to be made, nobody changes anything, and nothing is locked.
    """
    directory = places().runtime
    try:
        if make:
            os.makedirs(directory, mode=0o755, exist_ok=True)
        elif not os.path.lexists(f"{directory}/{_LOCK}"):
            yield
            return
        fd = os.open(f"{directory}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        raise NetworkError(
            "The lock for packet rules cannot be opened",
            path=f"{directory}/{_LOCK}",
            errno=e.errno,
            remedy="See that the directory can be written, or name another one: SWARMCG_RUNTIME_DIR.",
        ) from e
    try:
        hold(fd, fcntl.LOCK_EX, within)
        yield
    finally:
        os.close(fd)
