"""Verdicts on the directories that swarmcg writes to."""

from collections.abc import Iterator
from typing import Final

from swarmcg.doctor.check import Check, fail, ok, warn
from swarmcg.doctor.seen import Place, Seen

__all__ = ["places"]

_LOST_AT_BOOT: Final = frozenset({"tmpfs", "ramfs", "overlay,volatile"})
_ROOM_BYTES: Final = 64 << 20
"""A report is some 2 kB and a bot's code some MB: what is left below this ends soon."""
_ROOM_FILES: Final = 1000
_HOLDS: Final = {
    "state": "the reports of how bots ended",
    "runtime": "sockets",
    "cache": "the code of bots",
}


def places(seen: Seen) -> Iterator[Check]:
    """State, runtime and cache directory, each by its first fault."""
    for place in seen.places:
        yield _broken(place) or _cramped(place) or _forgetful(place) or _good(place)


def _name(place: Place) -> str:
    return f"place.{place.purpose}"


def _elsewhere(place: Place) -> str:
    return f"SWARMCG_{place.purpose.upper()}_DIR=DIR names another one."


def _broken(place: Place) -> Check | None:
    if place.refused:
        why = f"{place.path} cannot be looked at, since no process can be started: {place.refused}"
        return fail(_name(place), why, "Mend that, and run it again.")
    if not place.answered:
        why = f"the file system of {place.path} does not answer: whoever uses it waits, and cannot be killed"
        return fail(
            _name(place), why, f"Mend its server, or umount -l the mount above it. {_elsewhere(place)}"
        )
    if not place.directory:
        why = f"{place.exists} is no directory, so {place.path} cannot be made"
        return fail(_name(place), why, f"Move it away. {_elsewhere(place)}")
    if not place.writable:
        why = f"{place.path} cannot be written ({place.exists} does not allow it): {_HOLDS[place.purpose]} go there"
        return fail(_name(place), why, f"mkdir -p {place.path}, as root, for this user. {_elsewhere(place)}")
    return None


def _cramped(place: Place) -> Check | None:
    remedy = f"Free some on the file system of {place.exists}. {_elsewhere(place)}"
    if place.free_bytes is not None and place.free_bytes < _ROOM_BYTES:
        why = f"{place.free_bytes >> 20} MiB are left for {place.path}: {_HOLDS[place.purpose]} go there"
        return (warn if place.free_bytes else fail)(_name(place), why, remedy)
    if place.free_files is not None and place.free_files < _ROOM_FILES:
        why = f"{place.free_files} files (inodes) are left for {place.path}"
        return (warn if place.free_files else fail)(_name(place), why, remedy)
    return None


def _forgetful(place: Place) -> Check | None:
    if place.purpose != "state":
        return None
    if place.kind in _LOST_AT_BOOT:
        why = f"{place.path} lies on {place.kind}: reports are lost when the host goes down"
        return warn(_name(place), why, _elsewhere(place))
    if not place.syncs:
        why = f"{place.path} lies on {place.kind or 'a file system'} without fsync: a crash of the host loses reports"
        return warn(_name(place), why, _elsewhere(place))
    return None


def _good(place: Place) -> Check:
    room = "" if place.free_bytes is None else f", {place.free_bytes >> 20} MiB free"
    made = "" if place.path == place.exists else "; it is made when it is needed"
    return ok(_name(place), f"{place.path} ({place.kind or 'file system not told'}{room}){made}")
