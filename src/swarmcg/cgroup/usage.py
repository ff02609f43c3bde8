"""What a slice used, read from its counters before it is removed. What the kernel does not count is None."""

import sys
from typing import Any, Final

import msgspec

from swarmcg.bot import Cpu, Io, Pressure, Stall
from swarmcg.cgroup.files import Files

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Usage", "usage"]

_IO: Final = {"read_bytes": "rbytes", "write_bytes": "wbytes", "read_ops": "rios", "write_ops": "wios"}


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one slice, in the units of the exit report."""

    cpu: Cpu = Cpu()
    memory_peak_bytes: int | None = None
    swap_peak_bytes: int | None = None
    io: Io = Io()
    pids_peak: int | None = None
    oom_kills: int | None = None
    pressure: Pressure = Pressure()


def usage(files: Files) -> Usage:
    """Reads every counter once. Raises OSError for anything but an absent file."""
    return Usage(
        cpu=_cpu(files.look("cpu_stat")),
        memory_peak_bytes=files.look("memory_peak"),
        swap_peak_bytes=files.look("swap_peak"),
        io=_io(files.look("io_stat")),
        pids_peak=files.look("pids_peak"),
        oom_kills=(files.look("memory_events") or {}).get("oom_kill"),
        pressure=Pressure(
            cpu=_stall(files.look("cpu_pressure")),
            memory=_stall(files.look("memory_pressure")),
            io=_stall(files.look("io_pressure")),
        ),
    )


def _seconds(microseconds: int | str | None) -> float | None:
    return None if microseconds is None else int(microseconds) / 1e6


def _cpu(stat: dict[str, int] | None) -> Cpu:
    stat = stat or {}
    return Cpu(
        user_s=_seconds(stat.get("user_usec")),
        system_s=_seconds(stat.get("system_usec")),
        throttled_s=_seconds(stat.get("throttled_usec")),
    )


def _io(stat: dict[str, dict[str, str]] | None) -> Io:
    """Summed over the devices; a slice that did no I/O has an empty file, which is a true 0."""
    if stat is None:
        return Io()
    sums: dict[str, Any] = {
        name: sum(int(device.get(key, 0)) for device in stat.values()) for name, key in _IO.items()
    }
    return Io(**sums)


def _stall(pressure: dict[str, dict[str, str]] | None) -> Stall:
    pressure = pressure or {}
    return Stall(
        some_s=_seconds(pressure.get("some", {}).get("total")),
        full_s=_seconds(pressure.get("full", {}).get("total")),
    )
