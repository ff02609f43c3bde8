"""Devices as docker's flags name them, resolved to the numbers that the kernel and OCI use."""

import os
import re
import stat
import sys
from typing import Final, Literal, cast

from swarmcg.cli import sizes
from swarmcg.cli.parser import UsageError
from swarmcg.resources import Device, ThrottleDevice, WeightDevice

__all__ = ["byte_rate", "node", "rate", "rule", "weight"]

_NUMBERS: Final = re.compile(r"(\d{1,10}):(\d{1,10})", re.ASCII)
_RULE: Final = re.compile(r"([abc]) (\d{1,10}|\*):(\d{1,10}|\*) ([rwm]{1,3})", re.ASCII)
_ACCESS: Final = re.compile(r"[rwm]{1,3}")


def weight(flag: str, text: str) -> WeightDevice:
    """``DEV:N``."""
    major, minor, value = _disk(flag, text)
    return WeightDevice(major=major, minor=minor, weight=sizes.whole(flag, value))


def rate(flag: str, text: str) -> ThrottleDevice:
    """``DEV:N``, operations a second."""
    major, minor, value = _disk(flag, text)
    return ThrottleDevice(major=major, minor=minor, rate=sizes.whole(flag, value))


def byte_rate(flag: str, text: str) -> ThrottleDevice:
    """``DEV:SIZE``, bytes a second."""
    major, minor, value = _disk(flag, text)
    return ThrottleDevice(major=major, minor=minor, rate=sizes.size(flag, value))


def node(flag: str, text: str) -> Device:
    """``DEV[:PERM]``. Docker's middle part, another name inside a container, must be the same here."""
    path, *rest = text.split(":")
    access = rest.pop() if rest and _ACCESS.fullmatch(rest[-1]) else "rwm"
    if rest not in ([], [path]):
        cause = "a slice has no file system of its own, so a device keeps its name"
        raise _wrong(flag, text, cause, "Give DEV or DEV:PERM, as in /dev/kvm:rw.")
    kind, major, minor = _numbers(flag, path)
    return Device(allow=True, type="b" if kind == "b" else "c", major=major, minor=minor, access=access)


def rule(flag: str, text: str) -> Device:
    """``TYPE MAJ:MIN ACCESS``, each number possibly ``*``."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise _wrong(flag, text, "it is no device rule", "Give type, numbers and access: 'c 42:* rwm'.")
    kind, major, minor, access = found.groups()
    return Device(
        allow=True,
        type=cast("Literal['a', 'b', 'c']", kind),
        major=None if major == "*" else int(major),
        minor=None if minor == "*" else int(minor),
        access=access,
    )


def _disk(flag: str, text: str) -> tuple[int, int, str]:
    """The numbers of the block device, and what stands behind the last colon."""
    device, colon, value = text.rpartition(":")
    if not colon or not device or not value:
        raise _wrong(flag, text, "it names no device and value", "Give both, as in /dev/sda:10m or 8:0:10m.")
    numbers = _NUMBERS.fullmatch(device)
    if numbers is not None:
        return int(numbers[1]), int(numbers[2]), value
    kind, major, minor = _numbers(flag, device)
    if kind != "b":
        raise _wrong(flag, text, f"{device} is no block device", "Name a disk; 'lsblk' lists them.")
    return major, minor, value


def _numbers(flag: str, path: str) -> tuple[str, int, int]:
    if sys.platform == "win32":
        raise _wrong(flag, path, "this platform has no device numbers", "Name the device by MAJ:MIN.")
    try:
        found = os.stat(path)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise _wrong(flag, path, f"the device cannot be looked at: {why}", "Name one below /dev.") from None
    for kind, matches in (("b", stat.S_ISBLK), ("c", stat.S_ISCHR)):
        if matches(found.st_mode):
            return kind, os.major(found.st_rdev), os.minor(found.st_rdev)
    raise _wrong(flag, path, "it is no device", "Name a device node, as in /dev/sda.")


def _wrong(flag: str, text: str, cause: str, remedy: str) -> UsageError:
    return UsageError(f"{flag} cannot be used", value=text, cause=cause, remedy=remedy)
