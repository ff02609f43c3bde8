"""Changes the limits of running slices: all that is asked for in all of them, or nothing in any.

Whoever may write the files may do it, the slices' owner or not; nothing is asked of the owner. Updates of one
slice exclude each other, also between processes. What is to be written is decided before the first write,
from what the files show under that lock, and is recorded with the slice; so an updater that is killed half-way
is undone by the next update of the slice.
"""

import contextlib
import errno
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from swarmcg.bot import OnUnenforceable
from swarmcg.cgroup import network
from swarmcg.cgroup.files import cgroup_errors, read_text, write_line
from swarmcg.cgroup.home import Home, home_of
from swarmcg.cgroup.limits import Limits, recorded
from swarmcg.cgroup.protection import PROTECTIONS
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import CgroupError, SwarmcgError, UpdateError
from swarmcg.resources import (
    COMPANIONS,
    Abilities,
    Change,
    Line,
    LinuxResources,
    NetworkPlan,
    Plan,
    changed_packets,
    changes,
    check,
    limits_packets,
    plan,
    settled,
)
from swarmcg.resources.devices import (
    FIELD as DEVICES,
    recorded as device_record,
    remembered as remembered_devices,
)
from swarmcg.resources.plan import unenforceable

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["preview", "update"]

_LOG: Final = logging.getLogger("swarmcg")
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
    """The plan of an update, and what its files show now. Changes nothing, and waits for nobody.

    Raises ResourcesError, and UpdateError when the slice has ended.
    """
    asked = asked.checked()
    with _visited(path) as member:
        return member.plan(asked, *_abilities([member], asked))


def _abilities(members: Sequence["_Member"], asked: LinuxResources) -> list[Abilities]:
    """What each of the slices can be given when all ask for the same: those of one home share its protection."""
    homes = Counter(member.home.path for member in members)
    paths = [member.path for member in members]
    found = {member.home.path: member.home for member in members}
    looks = {"disks": asked.block_io is not None, "device_rules": asked.devices is not None}
    offered = {path: home.abilities(besides=paths, **looks) for path, home in found.items()}
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
def _visited(path: str) -> Iterator["_Member"]:
    try:
        held = Slice.visit(path)
    except FileNotFoundError:
        raise _ended(path) from None
    try:
        yield _Member(home_of(held), held)
    except FileNotFoundError:
        if os.path.exists(path):
            raise
        raise _ended(path) from None
    finally:
        held.close()


@contextlib.contextmanager
def _locked(path: str, within: float) -> Iterator["_Member"]:
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
        member.recover()
        yield member


class _Member:
    """One slice of an update."""

    def __init__(self, home: Home, held: Slice) -> None:
        self.home: Final = home
        self.held: Final = held
        self._plan = Plan()
        self.path: Final = held.path
        self.changes: tuple[Change, ...] = ()
        self._written: Final[dict[str, str]] = {}
        self._look()

    def _look(self) -> None:
        """Reads what is recorded with the slice; to be done anew under the lock."""
        self._recorded = recorded(self.held)
        self._before = self.held.recall("limits")
        self._packets = self._packets_then = self.held.filtered()
        self._devices = self._devices_then = self.held.device_rules()

    def plan(self, asked: LinuxResources, abilities: Abilities) -> tuple[Plan, dict[str, str]]:
        """What becomes of every field that is asked for, and what the files show now."""
        files = frozenset(os.listdir(self.path))
        abilities = msgspec.structs.replace(abilities, files=files)
        now: dict[str, str] = {name: self._shown(name) for name in COMPANIONS if name in files}
        made = plan(asked, abilities, now=now)
        for step in made.steps:
            if step.file not in now:
                with cgroup_errors(f"{step.field} cannot be read", f"{self.path}/{step.file}", step.value):
                    now[step.file] = self._shown(step.file)
        check(asked, made, now)
        return made, now

    def weigh(self, asked: LinuxResources, abilities: Abilities, policy: OnUnenforceable) -> None:
        """Decides what is to be written. Raises what forbids it; nothing is written yet."""
        self._plan, now = self.plan(asked, abilities)
        if self._plan.refused and policy == "refuse":
            raise unenforceable(self._plan)
        for row in self._plan.unenforced:
            _LOG.warning("%s: %s is not in force: %s", self.path, row.field, row.why)
        if asked.network is not None:
            made = self._plan.network
            self._packets_then = changed_packets(self._packets, asked.network, made, self._plan.rows)
        if any(row.field == DEVICES and row.enforceable for row in self._plan.rows):
            self._devices_then = self._plan.devices
        weight = self._recorded.limits.get("cpu.weight")
        self.changes = changes(self._plan, now, weight=weight, page_size=abilities.page_size)

    def announce(self) -> None:
        """Records how to undo what is about to be written."""
        lines = [line for change in reversed(self.changes) for line in change.undo]
        if lines or self.refilters or self.regates:
            earlier = None if self._devices is None else device_record(self._devices)
            told = _Updating(tuple(lines), self._before, self._packets, self.refilters, earlier, self.regates)
            self.held.remember("updating", msgspec.to_builtins(told))

    @property
    def refilters(self) -> bool:
        """Whether packet rules are to be changed."""
        return self._packets_then != self._packets

    def refilter(self) -> None:
        """Changes the packet rules in one step. Raises CgroupError."""
        self.held.filter(self._packets_then)

    def unfilter(self) -> bool:
        """Puts the packet rules back that were there before; whether that is so."""
        with contextlib.suppress(OSError, CgroupError):
            self.held.filter(self._packets)
            return True
        return False

    @property
    def regates(self) -> bool:
        """Whether device rules are to be changed."""
        return self._devices_then != self._devices

    def regate(self) -> None:
        """Changes the device rules in one step. Raises CgroupError."""
        self.held.apply_devices(self._devices_then)

    def ungate(self) -> bool:
        """Puts the device rules back that were there before; whether that is so."""
        with contextlib.suppress(OSError, CgroupError):
            self.held.apply_devices(self._devices)
            return True
        return False

    def recover(self) -> None:
        """Undoes what an update wrote that was killed before it could finish. For whoever just took the lock."""
        if (told := self.held.recall("updating")) is not None:
            with (
                cgroup_errors("What a killed update had written could not be undone", self.path),
                contextlib.suppress(msgspec.ValidationError),
            ):
                left = msgspec.convert(told, _Updating)
                if left.refilters:
                    self.held.filter(left.packets)
                if left.regates:
                    self.held.apply_devices(remembered_devices(left.devices))
                for line in left.undo:
                    self._put(line)
                self._before = left.limits
                self.unrecord()
            self.finish()
        self._look()

    def write(self, change: Change) -> None:
        """Writes one line and reads it back. Raises CgroupError."""
        with cgroup_errors(
            f"{change.field} could not be changed", f"{self.path}/{change.file}", change.value
        ):
            self._put(Line(change.file, change.value))
        self._written[change.file] = self.held.confirm(change.field, change.file, change.value)

    def undo(self, change: Change) -> bool:
        """Puts back what was there before; whether that is so."""
        with contextlib.suppress(
            OSError, CgroupError
        ):  # a value that never changed needs no write to be there
            for line in change.undo:
                self._put(line)
        with contextlib.suppress(OSError):
            return all(settled(line.file, line.text, self._shown(line.file)) for line in change.undo)
        return False

    def _put(self, line: Line) -> None:
        if line.file in PROTECTIONS:
            self.home.protect(self.path, line.file, line.text)
        else:
            write_line(f"{self.path}/{line.file}", line.text)

    def record(self) -> None:
        """Keeps with the slice what is in force by now."""
        untouched = {step.file for step in self._plan.steps} - self._written.keys()
        new = self._written | {file: self._shown(file) for file in untouched}
        fields = {row.field for row in self._plan.rows}
        kept = tuple(row for row in self._recorded.unenforced if row.field not in fields)
        limits = Limits(
            limits={**self._kept(), **new},
            unenforced=kept + self._plan.unenforced,
            updates=self._recorded.updates + 1,
            updated_at=time.time(),
        )
        self.held.remember("limits", msgspec.to_builtins(limits))

    def _kept(self) -> dict[str, str]:
        """What was recorded before, with the rules for packets and devices as they are now."""
        before, then = (rules.limits if rules else {} for rules in (self._packets, self._packets_then))
        rest = {name: value for name, value in self._recorded.limits.items() if name not in before}
        rest.pop(DEVICES, None)
        devices = {} if self._devices_then is None else {DEVICES: str(self._devices_then)}
        return {**rest, **then, **devices}

    def unrecord(self) -> None:
        """Brings the record back that was there before."""
        if self._before is None:
            self.held.forget("limits")
        else:
            self.held.remember("limits", self._before)

    def finish(self) -> None:
        """Nothing of the update is left to be undone."""
        self.held.forget("updating")

    def in_force(self) -> dict[str, str]:
        """What the files of the update show now, by path; none of a slice that is gone."""
        found = {}
        for change in self.changes:
            with contextlib.suppress(OSError):
                found[f"{self.path}/{change.file}"] = self._shown(change.file)
        if self.refilters:
            rules = self.held.filtered()
            found[f"packet rules of {self.path}"] = str(dict(rules.limits) if rules else {})
        if self.regates:
            found[f"device rules of {self.path}"] = str(self.held.device_rules() or "none")
        return found

    def _shown(self, file: str) -> str:
        return read_text(f"{self.path}/{file}")


class _Updating(msgspec.Struct, frozen=True):
    """The attribute that is there while an update writes."""

    undo: tuple[Line, ...]
    limits: dict[str, Any] | None = None
    packets: NetworkPlan | None = None
    refilters: bool = False
    devices: dict[str, str] | None = None
    regates: bool = False


def _carry_out(members: Sequence[_Member]) -> None:
    """Writes everything, or brings everything back. An interruption (Ctrl-C) counts as a failure."""
    done: list[tuple[_Member, Change]] = []
    filtered: list[_Member] = []
    gated: list[_Member] = []
    try:
        for member in members:
            member.announce()
        for member in members:
            for change in member.changes:
                done.append((member, change))
                member.write(change)
        for member in filter(lambda member: member.refilters, members):
            filtered.append(member)
            member.refilter()
        for member in filter(lambda member: member.regates, members):
            gated.append(member)
            member.regate()
        for member in members:
            member.record()
    except BaseException as e:
        in_force = _restore(members, done, filtered, gated)
        if in_force or isinstance(e, SwarmcgError | OSError):
            raise _failed(e, in_force) from e
        raise
    for member in members:
        member.finish()


def _restore(
    members: Sequence[_Member],
    done: Sequence[tuple[_Member, Change]],
    filtered: Sequence[_Member],
    gated: Sequence[_Member],
) -> dict[str, str]:
    """Puts every value back, in reverse order; where that fails, what is in force in all files of the update."""
    stuck = [member for member in gated if not member.ungate()]
    stuck += [member for member in filtered if not member.unfilter()]
    stuck += [member for member, change in reversed(done) if not member.undo(change)]
    for member in members:
        with contextlib.suppress(OSError):
            member.unrecord()
            if member not in stuck:
                member.finish()
    if not any(os.path.exists(member.path) for member in stuck):
        return {}
    return {path: value for member in members for path, value in member.in_force().items()}


def _failed(error: BaseException, in_force: Mapping[str, str]) -> UpdateError:
    if isinstance(error, CgroupError) and error.path is not None:
        slice_path = os.path.dirname(error.path)
        if error.errno in {errno.ENOENT, errno.ENODEV} and not os.path.exists(slice_path):
            return _ended(slice_path)
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
        remedy="Set these files by hand, or end the bot." if in_force else facts.get("remedy"),
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
