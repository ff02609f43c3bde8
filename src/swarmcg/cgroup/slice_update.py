"""One slice of an update: what is decided, written, put back and recorded."""

import contextlib
import functools
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from swarmcg.bot import OnUnenforceable
from swarmcg.cgroup.files import cgroup_errors, exchange_line, read_value
from swarmcg.cgroup.find import home_of
from swarmcg.cgroup.limits import Limits, recorded_as
from swarmcg.cgroup.protection import PROTECTIONS
from swarmcg.cgroup.recorded import LimitFile
from swarmcg.cgroup.slice import Slice, packet_rules
from swarmcg.errors import CgroupError
from swarmcg.resources import (
    Abilities,
    Change,
    Line,
    LinuxResources,
    NetworkPlan,
    Plan,
    changed_packets,
    changes,
    check,
    companions,
    plan,
    settled,
)
from swarmcg.resources.devices import FIELD as DEVICES, recorded as remembered_as, remembered
from swarmcg.resources.plan import WITHOUT_CHANGE, unenforceable

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Act", "SliceUpdate"]

_LOG: Final = logging.getLogger("swarmcg")


class Act(NamedTuple):
    """One step of an update: ``do`` raises CgroupError or OSError, ``undo`` tells whether all is as before."""

    of: "SliceUpdate"
    do: Callable[[], None]
    undo: Callable[[], bool]


class SliceUpdate:
    """One slice while its limits are changed: what is decided, written, put back and recorded, a method each.

    For one thread, under the slice's lock but for :meth:`plan`. :meth:`look` comes first.
    """

    def __init__(self, held: Slice) -> None:
        self.held: Final = held
        self._plan = Plan()
        self.path: Final = held.path
        self.changes: tuple[Change, ...] = ()
        self._written: Final[dict[str, str]] = {}

    def look(self) -> None:
        """Reads what is recorded with the slice."""
        self._left, self._before, intent, devices, packets = self.held.recall_all(
            "updating", "limits", "intent", DEVICES, "network"
        )
        self.home = home_of(self.path, intent)
        self._recorded = recorded_as(self._before, intent)
        self._devices = self._devices_then = remembered(devices)
        self._packets = self._packets_then = packet_rules(packets)

    def plan(self, asked: LinuxResources, abilities: Abilities) -> tuple[Plan, dict[str, str]]:
        """What becomes of every field that is asked for, and what the files show now."""
        files = frozenset(os.listdir(self.path))
        abilities = msgspec.structs.replace(abilities, files=files)
        now = {name: self._shown(name) for name in companions(asked) if name in files}
        made = plan(asked, abilities, now=now)
        for step in made.steps:
            if step.file not in now:
                with cgroup_errors(f"{step.field} cannot be read", f"{self.path}/{step.file}", step.value):
                    now[step.file] = self._shown(step.file)
        check(asked, made, now, page_size=abilities.page_size)
        return made, now

    def rules(self) -> dict[str, str]:
        """The rules for devices and packets that are in force, by field: what is in no file."""
        devices = {} if self._devices is None else {DEVICES: str(self._devices)}
        return {**devices, **({} if self._packets is None else self._packets.limits)}

    def weigh(self, asked: LinuxResources, abilities: Abilities, policy: OnUnenforceable) -> None:
        """Decides what is to be written. Raises what forbids it; nothing is written yet."""
        self._plan, now = self.plan(asked, abilities)
        if self._plan.refused and policy == "refuse":
            raise unenforceable(self._plan, WITHOUT_CHANGE)
        for row in self._plan.unenforced:
            _LOG.warning("%s: %s is not in force: %s", self.path, row.field, row.why)
        if asked.devices is not None and any(
            row.field == DEVICES and row.enforceable for row in self._plan.rows
        ):
            self._devices_then = self._plan.devices
        if asked.network is not None:
            made = self._plan.network
            self._packets_then = changed_packets(self._packets, asked.network, made, self._plan.rows)
        weight = self._recorded.limits.get("cpu.weight")
        self.changes = changes(self._plan, now, weight=weight, page_size=abilities.page_size)

    def announce(self) -> None:
        """Records how to undo what is about to be written."""
        lines = [line for change in reversed(self.changes) for line in change.undo]
        if lines or self._new_devices or self._new_packets:
            told = _Updating(
                undo=tuple(lines),
                limits=self._before,
                devices=(self._earlier_devices,) if self._new_devices else (),
                packets=(self._packets,) if self._new_packets else (),
            )
            self.held.remember("updating", msgspec.to_builtins(told))

    def acts(self) -> Iterator[Act]:
        """What is to be done, in order: the files, the device rules, the packet rules."""
        for protects, several in itertools.groupby(self.changes, lambda change: change.file in PROTECTIONS):
            write = self._protect if protects else self._write
            # One lock of the home for all that need it, which follow each other.
            for group in [tuple(several)] if protects else [(change,) for change in several]:
                yield Act(self, functools.partial(write, group), functools.partial(self._undo, group))
        if self._new_devices:
            yield Act(self, lambda: self.held.apply_devices(self._devices_then), self._put_devices_back)
        if self._new_packets:
            yield Act(self, lambda: self.held.filter(self._packets_then), self._put_packets_back)

    @property
    def _earlier_devices(self) -> dict[str, str] | None:
        return None if self._devices is None else remembered_as(self._devices)

    @property
    def _new_devices(self) -> bool:
        return self._devices_then != self._devices

    @property
    def _new_packets(self) -> bool:
        return self._packets_then != self._packets

    def _put_devices_back(self) -> bool:
        with contextlib.suppress(OSError, CgroupError):
            self.held.apply_devices(self._devices)
            return True
        return False

    def _put_packets_back(self) -> bool:
        with contextlib.suppress(OSError, CgroupError):
            self.held.filter(self._packets)
            return True
        return False

    def recover(self) -> None:
        """Looks; undoes what an update left that was killed before it could finish. For whoever just took the lock."""
        self.look()
        if self._left is None:
            return
        with (
            cgroup_errors("What a killed update had written could not be undone", self.path),
            contextlib.suppress(msgspec.ValidationError),
        ):
            left = msgspec.convert(self._left, _Updating)
            for packets in left.packets:
                self.held.filter(packets)
            for devices in left.devices:
                self.held.apply_devices(remembered(devices))
            for file, text in left.undo:
                self._put(Line(file, text))
            self._before = left.limits
            self.unrecord()
        self.finish()
        self.look()

    def _write(self, group: Sequence[Change]) -> None:
        """Writes line by line and reads each back. Raises CgroupError."""
        for change in group:
            self._change(change, lambda file, text: exchange_line(f"{self.path}/{file}", text))

    def _protect(self, group: Sequence[Change]) -> None:
        """The same for PROTECTIONS, under the lock of the home."""
        with self._told(group[0]), self.home.protecting(self.path) as put:
            for change in group:
                self._change(change, put)

    def _told(self, change: Change) -> contextlib.AbstractContextManager[None]:
        what = f"{change.field} could not be changed"
        return cgroup_errors(what, f"{self.path}/{change.file}", change.value)

    def _change(self, change: Change, put: Callable[[str, str], str]) -> None:
        with self._told(change):
            shown = put(change.file, change.value)
        self._written[change.file] = self.held.accept(change.field, change.file, change.value, shown)

    def _undo(self, group: Sequence[Change]) -> bool:
        """Puts back what was there before, the last change first; whether that is so."""
        undone = [self._undo_one(change) for change in reversed(group)]
        return all(undone)

    def _undo_one(self, change: Change) -> bool:
        # A value that never changed needs no write to be there.
        with contextlib.suppress(OSError, CgroupError):
            for line in change.undo:
                self._put(line)
        with contextlib.suppress(OSError):
            return all(settled(line.file, line.text, self._shown(line.file)) for line in change.undo)
        return False

    def _put(self, line: Line) -> None:
        if line.file in PROTECTIONS:
            self.home.protect(self.path, line.file, line.text)
        else:
            exchange_line(f"{self.path}/{line.file}", line.text)

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
        """What was recorded before, with the rules for devices and packets as they are now."""
        before, then = (rules.limits if rules else {} for rules in (self._packets, self._packets_then))
        gone = {*before, DEVICES}
        rest = {name: value for name, value in self._recorded.limits.items() if name not in gone}
        devices = {} if self._devices_then is None else {DEVICES: str(self._devices_then)}
        return {**rest, **devices, **then}

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
        if self._new_devices:
            found[f"device rules of {self.path}"] = str(self.held.device_rules() or "none")
        if self._new_packets:
            rules = self.held.filtered()
            found[f"packet rules of {self.path}"] = str(dict(rules.limits) if rules else "none")
        return found

    def _shown(self, file: str) -> str:
        return read_value(f"{self.path}/{file}")


class _Updating(msgspec.Struct, frozen=True):
    """The attribute that is there while an update writes."""

    undo: tuple[tuple[LimitFile, str], ...]
    limits: dict[str, Any] | None = None
    devices: tuple[dict[str, str] | None, ...] = ()
    packets: tuple[NetworkPlan | None, ...] = ()
    """One entry where these change: what there was before."""
