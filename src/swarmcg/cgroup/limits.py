"""The limits of a running slice: as its attributes tell of them, and as its files show them."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from swarmcg.bot import Row
from swarmcg.cgroup import network
from swarmcg.cgroup.files import read_some
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.names import slice_name
from swarmcg.cgroup.recorded import Count, InForce, Moment, NotInForce, Pid, is_limit_file, tellable
from swarmcg.cgroup.slice import Slice, recall
from swarmcg.errors import ConfigError, NetworkError, printable

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Limits", "Tenant", "find", "limits_at_end", "limits_of", "recorded", "recorded_as", "tenants"]

_LOG: Final = logging.getLogger("swarmcg")

_SHOWN: Final = 16


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a slice was given, as recorded with it: files and what they showed, and what is not in force.

    ``updates`` counts the updates since the start, of which ``updated_at`` (seconds since 1970) was the last.
    """

    limits: InForce = {}
    unenforced: NotInForce = ()
    updates: Count = 0
    updated_at: Moment | None = None


def recorded(held: Slice) -> Limits:
    """The limits as recorded by the last update, or else at the start."""
    return recorded_as(*held.recall_all("limits", "intent"))


def recorded_as(*kept: dict[str, Any] | None) -> Limits:
    """The limits as the first of these attributes tells them that is there and not garbled."""
    return next(filter(None, map(_recorded, kept)), Limits())


def limits_of(held: Slice, start: Limits | None = None) -> Limits:
    """The same with the values that the files show now, whoever wrote them. ``start`` is what was recorded at the
    start, for who knows it.

    What is recorded need not be what we recorded, so of other files than limits, and of one that shows more than 64
    KiB, the recorded value is told.
    """
    told = recorded(held) if start is None else _recorded(held.recall("limits")) or start
    now = {file: _shown(held, file, value) for file, value in told.limits.items()}
    return msgspec.structs.replace(told, limits=now)


def limits_at_end(held: Slice, start: Limits) -> Limits:
    """The same for the report of the slice's end, where limits on packets that are in force no more count as not
    enforced: no file shows these. Where that cannot be looked up, they are told as recorded.
    """
    told = limits_of(held, start)
    try:
        rules = held.filtered() if any(map(_is_for_packets, told.limits)) else None
        missing = network.missing(held.path, rules) if rules is not None else {}
    except (NetworkError, OSError) as e:
        _LOG.warning("%s: whether the limits on packets are still in force is not known: %s", held.path, e)
        return told
    lost = {field: why for field, why in missing.items() if field in told.limits}
    return msgspec.structs.replace(
        told,
        limits={field: value for field, value in told.limits.items() if field not in lost},
        unenforced=(
            *told.unenforced,
            *(_lost(field, told.limits[field], why) for field, why in lost.items()),
        ),
    )


def _is_for_packets(field: str) -> bool:
    return field.startswith(("bandwidth.", "network."))


def _lost(field: str, value: str, why: str) -> Row:
    return Row(
        field=field,
        file=None,
        value=value,
        why=f"it was in force at first, and is no more at the end: {why}",
        enforceable=False,
        remedy="See who takes away interfaces, classes or tables while bots run; start the bot anew after that.",
    )


def _recorded(kept: dict[str, Any] | None) -> Limits | None:
    with contextlib.suppress(msgspec.ValidationError):
        found = msgspec.convert(kept, Limits)
        if tellable(found):
            return found
    return None  # it is not there, or somebody garbled it


def _shown(held: Slice, file: str, otherwise: str) -> str:
    if is_limit_file(file):
        with contextlib.suppress(OSError):
            return read_some(f"{held.path}/{file}")
    return otherwise


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Whose slice it is."""

    path: str
    bot_id: str
    incarnation: str
    pid: int | None = None
    started: float | None = None

    def __str__(self) -> str:
        pid = "" if self.pid is None else f" pid {self.pid}"
        at = (
            ""
            if self.started is None
            else time.strftime(" since %Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started))
        )
        return f"incarnation {self.incarnation}:{pid}{at}, slice {self.path}"


class _Intent(msgspec.Struct, frozen=True):
    """The part of a slice's intent that names its bot."""

    bot_id: str
    incarnation: str


class _Running(msgspec.Struct, frozen=True):
    """The part of what the keeper noted that tells of the main process."""

    pid: Pid
    at: Moment


def tenants(homes: Iterable[Home]) -> list[Tenant]:
    """The bots whose main process has been started in these homes, by slice; whoever owns them."""
    found = (_tenant(path) for home in homes for path in home.slices())
    return [tenant for tenant in found if tenant is not None]


def _tenant(path: str) -> Tenant | None:
    try:
        intent = msgspec.convert(recall(path, "intent"), _Intent)
        running = recall(path, "running")
    except (FileNotFoundError, msgspec.ValidationError):
        return None  # it went meanwhile, or tells nothing of itself
    if os.path.basename(path) != slice_name(intent.bot_id, intent.incarnation):
        return None  # it calls itself as another
    if running is None:
        return None  # its limits are still being put in force
    with contextlib.suppress(msgspec.ValidationError):
        main = msgspec.convert(running, _Running)
        return Tenant(
            path=path, bot_id=intent.bot_id, incarnation=intent.incarnation, pid=main.pid, started=main.at
        )
    return Tenant(path=path, bot_id=intent.bot_id, incarnation=intent.incarnation)


def find(homes: Sequence[Home], wanted: str) -> Tenant:
    """The one bot that runs under this id or incarnation. Raises ConfigError when none or several do."""
    running = tenants(homes)
    found = [tenant for tenant in running if wanted in {tenant.bot_id, tenant.incarnation}]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{len(found)} bots run under this id",
            value=wanted,
            cause="; ".join(map(str, found)),
            remedy="Name one of them by its incarnation.",
        )
    ids = sorted({tenant.bot_id for tenant in running})
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    listed = ", ".join(printable(bot_id) for bot_id in ids[:_SHOWN])
    raise ConfigError(
        "No bot of this id runs here",
        path=homes[0].path,
        value=wanted,
        cause=f"these run: {listed}{more}" if ids else "no bot runs in any home of this user",
        remedy="Give the id or the incarnation of a running bot, or name another home with --home.",
    )
