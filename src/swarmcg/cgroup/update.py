"""Changes the limits of running slices: all that is asked for in all of them, or nothing in any.

Whoever may write the files may do it, the slices' owner or not; nothing is asked of the owner. Updates of one
slice exclude each other, also between processes. What is to be written is decided before the first write,
from what the files show under that lock, and is recorded with the slice; so an updater that is killed half-way
is undone by the next update of the slice.
"""

import contextlib
import errno
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from swarmcg.bot import OnUnenforceable
from swarmcg.cgroup import network
from swarmcg.cgroup.slice import Slice
from swarmcg.cgroup.slice_update import Act, SliceUpdate
from swarmcg.errors import CgroupError, SwarmcgError, UpdateError
from swarmcg.resources import Abilities, LinuxResources, Plan, limits_packets
from swarmcg.resources.looks import looks

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["preview", "update"]

_WITHIN_S: Final = 10.0
"""How long an update waits for others of the same slice: a limit below what is used takes as long as the
kernel needs to reclaim that.
"""


def update(
    paths: Sequence[str],
    asked: LinuxResources,
    *,
    policy: OnUnenforceable = "refuse",
    within: float = _WITHIN_S,
) -> None:
    """Puts what is asked for in force in every slice that is named by its path, or in none.

    Only fields that are named change. Frozen slices stay frozen. Safe to call from any thread and process;
    waits at most ``within`` seconds for each of the slices that somebody else changes.

    Raises ResourcesError for what makes no sense on this host or beside what stays in force,
    UnenforceableError by the policy, UpdateError (a CgroupError) when a slice has ended, the lock was not to be
    had, or the kernel refused a value: everything written before is put back then.
    """
    asked = asked.checked()
    with contextlib.ExitStack() as held:
        # In one order for all who lock several.
        members = [held.enter_context(_locked(path, within)) for path in sorted(set(paths))]
        for member, abilities in zip(members, _abilities(members, asked), strict=True):
            member.weigh(asked, abilities, policy)
        _carry_out(members)


def preview(path: str, asked: LinuxResources) -> tuple[Plan, dict[str, str]]:
    """The plan of an update, and what its files show now, with the rules for devices and packets by their fields.
    Changes nothing, and waits for nobody.

    Raises ResourcesError, and UpdateError when the slice has ended.
    """
    asked = asked.checked()
    with _visited(path) as member:
        member.look()
        made, now = member.plan(asked, *_abilities([member], asked))
        return made, {**now, **member.rules()}


def _abilities(members: Sequence[SliceUpdate], asked: LinuxResources) -> list[Abilities]:
    """What each of the slices can be given when all ask for the same: those of one home share its protection."""
    homes = Counter(member.home.path for member in members)
    paths = [member.path for member in members]
    found = {member.home.path: member.home for member in members}
    at = looks(asked)  # the files are looked up in each slice itself
    offered = {path: home.abilities(besides=paths, at=at) for path, home in found.items()}
    packets = {"network": network.probe()} if limits_packets(asked, None) else {}
    return [
        msgspec.structs.replace(
            offered[path],
            granted={name: n // homes[path] for name, n in offered[path].granted.items()},
            **packets,
        )
        for path in (member.home.path for member in members)
    ]


@contextlib.contextmanager
def _visited(path: str) -> Iterator[SliceUpdate]:
    """The slice, for a look or an update. What the kernel refuses because the slice went meanwhile, by whatever means
    (its files, attributes, nftables, which finds no cgroup), is told as that; other values that an update could not put
    back are more important, though.
    """
    try:
        held = Slice.visit(path)
    except FileNotFoundError:
        raise _ended(path) from None
    try:
        yield SliceUpdate(held)
    except (CgroupError, OSError) as e:
        told = isinstance(e, UpdateError) and e.in_force
        if told or e.errno not in {errno.ENOENT, errno.ENODEV} or os.path.exists(path):
            raise
        raise _ended(path) from e
    finally:
        held.close()


@contextlib.contextmanager
def _locked(path: str, within: float) -> Iterator[SliceUpdate]:
    """The slice, while nobody else changes its limits; what a killed update left in it is undone first."""
    with _visited(path) as member, contextlib.ExitStack() as lock:
        try:
            lock.enter_context(member.held.changing(within))
        except BlockingIOError as e:
            raise UpdateError(
                "The slice is being changed by somebody else",
                path=path,
                errno=e.errno,
                cause=f"an update has held its lock for {within:.0f} s",
                remedy="Try again; a limit far below what is used takes the kernel long to reclaim.",
            ) from None
        except FileNotFoundError as e:
            if not os.path.exists(path):
                raise
            raise UpdateError(
                "The limits of a bot that removed its own cgroup cannot be changed",
                path=f"{path}/main",
                errno=e.errno,
                cause="updates of a slice exclude each other by a lock on that cgroup",
                remedy="End the bot, and start it anew with other limits.",
            ) from None
        member.recover()
        yield member


def _carry_out(members: Sequence[SliceUpdate]) -> None:
    """Does everything, or brings everything back. An interruption (Ctrl-C) counts as a failure."""
    done: list[Act] = []
    try:
        for member in members:
            member.announce()
        for member in members:
            for act in member.acts():
                done.append(act)
                act.do()
        for member in members:
            member.record()
        for member in members:  # in here, too: what is not finished, the next update undoes
            member.finish()
    except BaseException as e:
        in_force = _restore(members, done)
        if in_force or isinstance(e, SwarmcgError | OSError):
            raise _failed(e, in_force) from e
        raise


def _restore(members: Sequence[SliceUpdate], done: Sequence[Act]) -> dict[str, str]:
    """Brings everything back, in reverse order; where that fails, what is in force of all that the update touches."""
    stuck = [act.of for act in reversed(done) if not act.undo()]
    for member in members:
        with contextlib.suppress(OSError):
            member.unrecord()
            if member not in stuck:
                member.finish()
    if not any(os.path.exists(member.path) for member in stuck):
        return {}
    return {path: value for member in members for path, value in member.in_force().items()}


def _failed(error: BaseException, in_force: Mapping[str, str]) -> UpdateError:
    facts = error.to_dict() if isinstance(error, SwarmcgError) else {}
    why = facts.get("cause") or (None if facts.get("errno") else str(error) or type(error).__name__)
    after = (
        "and earlier values could not all be put back; in force are " + _listed(in_force)
        if in_force
        else "every value is as it was before"
    )
    return UpdateError(
        facts.get("what", "The limits could not be changed"),
        path=facts.get("path"),
        value=facts.get("value"),
        errno=facts.get("errno") or (error.errno if isinstance(error, OSError) else None),
        cause=f"{why}; {after}" if why else after,
        remedy="Set these by hand, or end the bot." if in_force else facts.get("remedy"),
        in_force=in_force,
    )


def _listed(in_force: Mapping[str, str]) -> str:
    return ", ".join(f"{path} {value!r}" for path, value in in_force.items())


def _ended(path: str) -> UpdateError:
    return UpdateError(
        "The limits of a bot that has ended cannot be changed",
        path=path,
        cause="its slice is gone",
        remedy="Start it anew with other limits.",
    )
