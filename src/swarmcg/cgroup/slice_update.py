"""One slice of an update: what is decided, written, put back and recorded."""

import contextlib
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from swarmcg.bot import OnUnenforceable
from swarmcg.cgroup.files import cgroup_errors, read_text, write_line
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.limits import Limits, recorded
from swarmcg.cgroup.protection import PROTECTIONS
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import CgroupError
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

    def __init__(self, home: Home, held: Slice) -> None:
        self.home: Final = home
        self.held: Final = held
        self._plan = Plan()
        self.path: Final = held.path
        self.changes: tuple[Change, ...] = ()
        self._written: Final[dict[str, str]] = {}

    def look(self) -> None:
        """Reads what is recorded with the slice; to be done anew under the lock."""
        self._recorded = recorded(self.held)
        self._before = self.held.recall("limits")
        self._devices = self._devices_then = self.held.device_rules()
        self._packets = self._packets_then = self.held.filtered()

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
        for change in self.changes:
            yield Act(self, functools.partial(self._write, change), functools.partial(self._undo, change))
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
        """Undoes what an update wrote that was killed before it could finish. For whoever just took the lock."""
        if (told := self.held.recall("updating")) is not None:
            with (
                cgroup_errors("What a killed update had written could not be undone", self.path),
                contextlib.suppress(msgspec.ValidationError),
            ):
                left = msgspec.convert(told, _Updating)
                for packets in left.packets:
                    self.held.filter(packets)
                for devices in left.devices:
                    self.held.apply_devices(remembered(devices))
                for line in left.undo:
                    self._put(line)
                self._before = left.limits
                self.unrecord()
            self.finish()
        self.look()

    def _write(self, change: Change) -> None:
        """Writes one line and reads it back. Raises CgroupError."""
        with cgroup_errors(
            f"{change.field} could not be changed", f"{self.path}/{change.file}", change.value
        ):
            self._put(Line(change.file, change.value))
        self._written[change.file] = self.held.confirm(change.field, change.file, change.value)

    def _undo(self, change: Change) -> bool:
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
        return read_text(f"{self.path}/{file}")


class _Updating(msgspec.Struct, frozen=True):
    """The attribute that is there while an update writes."""

    undo: tuple[Line, ...]
    limits: dict[str, Any] | None = None
    devices: tuple[dict[str, str] | None, ...] = ()
    packets: tuple[NetworkPlan | None, ...] = ()
    """One entry where these change: what there was before."""
