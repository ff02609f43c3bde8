"""Devices as docker's flags name them, resolved to the numbers that the kernel and OCI use."""

import contextlib
import os
import re
import stat
import sys
from typing import Final, Literal, cast

from swarmcg.cli import sizes
from swarmcg.cli.parser import UsageError
from swarmcg.resources import Device, ThrottleDevice, WeightDevice

__all__ = ["byte_rate", "node", "rate", "rule", "weight"]

_Node = tuple[Literal["b", "c"], int, int]

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
    return ThrottleDevice(major=major, minor=minor, rate=sizes.rate(flag, value))


def node(flag: str, text: str) -> tuple[Device, ...]:
    """``DEV[:PERM]``, where DEV may be a link, or a directory: it stands for all device nodes below it, as of now.

    Docker's middle part, another name inside a container, must be the same here.
    """
    path, access = _permissions(flag, text)
    path = _on_host(flag, path)
    if _NUMBERS.fullmatch(path):
        cause = "numbers alone do not say whether it is a block or a character device"
        raise _wrong(flag, text, cause, f"Give --device-cgroup-rule 'c {path} {access}', or with b for c.")
    nodes = sorted(_below(path)) if os.path.isdir(path) else [_node(flag, path)]
    if not nodes:
        cause = "there is no device node in this directory, nor below it"
        raise _wrong(flag, text, cause, "Name a device node, as in /dev/kvm.")
    return tuple(
        Device(allow=True, type=kind, major=major, minor=minor, access=access) for kind, major, minor in nodes
    )


def _permissions(flag: str, text: str) -> tuple[str, str]:
    """The path and the letters. A path may have colons itself, as the links in /dev/disk/by-path do."""
    path, _, access = text.rpartition(":")
    if not path or os.path.lexists(text):
        return text, "rwm"
    if not _ACCESS.fullmatch(access):
        if "/" not in access and os.path.lexists(path.partition(":/")[0]):
            raise _wrong(flag, text, f"{access!r} is no permission", f"Give letters of rwm, as in {path}:rw.")
        return text, "rwm"
    return path, access


def _on_host(flag: str, path: str) -> str:
    here, colon, inside = path.partition(":/")
    if not colon or os.path.lexists(path):
        return path
    if f"/{inside}" != here:
        cause = "a slice has no file system of its own, so a device keeps its name"
        raise _wrong(flag, path, cause, "Give DEV or DEV:PERM, as in /dev/kvm:rw.")
    return here


def rule(flag: str, text: str) -> tuple[Device, ...]:
    """``TYPE MAJ:MIN ACCESS``, each number possibly ``*``."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise _wrong(flag, text, "it is no device rule", "Give type, numbers and access: 'c 42:* rwm'.")
    kind, major, minor, access = found.groups()
    made = Device(
        allow=True,
        type=cast("Literal['a', 'b', 'c']", kind),
        major=None if major == "*" else int(major),
        minor=None if minor == "*" else int(minor),
        access=access,
    )
    return (made,)


def _disk(flag: str, text: str) -> tuple[int, int, str]:
    """The numbers of the block device, and what stands behind the last colon."""
    device, colon, value = text.rpartition(":")
    if not colon or not device or not value:
        raise _wrong(flag, text, "it names no device and value", "Give both, as in /dev/sda:10m or 8:0:10m.")
    numbers = _NUMBERS.fullmatch(device)
    if numbers is not None:
        return int(numbers[1]), int(numbers[2]), value
    _check_no_file(flag, device)
    kind, major, minor = _node(flag, device)
    if kind != "b":
        raise _wrong(flag, text, f"{device} is no block device", "Name a disk; 'lsblk' lists them.")
    return major, minor, value


def _check_no_file(flag: str, path: str) -> None:
    """A directory or a file is refused, and told which device it lies on: others lie there as well."""
    if sys.platform == "win32":
        return
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return  # whoever asks for its numbers says so
    if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
        number = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"
        raise _wrong(flag, path, *_lies_on(path, number))


def _lies_on(path: str, number: str) -> tuple[str, str]:
    """Cause and remedy. Major 0 is none of a device: tmpfs, btrfs, overlay and the network have it."""
    if number.startswith("0:"):
        cause = f"it is no device, and its file system ({number}) does not say which one it is on"
        return cause, f"Name the disk, which 'findmnt --target {path}' shows."
    cause = f"it is no device, but lies on {number}, as others do"
    return cause, f"To limit what goes to that device, name it: {number}."


def _node(flag: str, path: str) -> _Node:
    if sys.platform == "win32":
        raise _wrong(flag, path, "this platform has no device numbers", "Name the device by MAJ:MIN.")
    try:
        found = _numbered(os.stat(path))
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise _wrong(flag, path, f"the device cannot be looked at: {why}", "Name one below /dev.") from None
    if found is None:
        raise _wrong(flag, path, "it is no device", "Name a device node, as in /dev/sda.")
    return found


def _below(directory: str) -> set[_Node]:
    """Every device node in a directory and below it; links are not followed."""
    nodes = set()
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                nodes.add(_numbered(os.lstat(f"{place}/{name}")))
    return {node for node in nodes if node is not None}


def _numbered(found: os.stat_result) -> _Node | None:
    if sys.platform == "win32":
        return None
    numbers = os.major(found.st_rdev), os.minor(found.st_rdev)
    if stat.S_ISBLK(found.st_mode):
        return "b", *numbers
    return ("c", *numbers) if stat.S_ISCHR(found.st_mode) else None


def _wrong(flag: str, text: str, cause: str, remedy: str) -> UsageError:
    return UsageError(f"{flag} cannot be used", value=text, cause=cause, remedy=remedy)
