"""Programs of cgroups as the kernel tells of them, asked without the code under test."""

import contextlib
import ctypes
import os
import platform
import struct
from pathlib import Path
from typing import Final

from tests.host.engine import until

_SYSCALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_LOAD, _ATTACH, _DETACH, _NEXT_ID, _BY_ID, _INFO, _QUERY = 5, 8, 9, 11, 13, 15, 16
_DEVICE_PROGRAM, _ON_DEVICES = 15, 6
ON_INGRESS: Final = 0
ON_PACKETS: Final = 8
"""A kind of program, as which those that keep to a rate are loaded."""
EXCLUSIVE: Final = 0
MULTI: Final = 2
YES: Final = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)  # r0 = 1; exit
NO: Final = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(_SYSCALL[platform.machine()], command, buffer, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result, buffer.raw


def attached(directory: str | Path, where: int = _ON_DEVICES) -> list[int]:
    """The ids of the device programs on this very cgroup, or of those for what it receives."""
    ids = (ctypes.c_uint32 * 64)()
    fd = os.open(directory, os.O_RDONLY)
    try:
        query = struct.pack("=IIIIQI4x", fd, where, 0, 0, ctypes.addressof(ids), 64)
        (count,) = struct.unpack_from("=I", _bpf(_QUERY, query)[1], 24)
    finally:
        os.close(fd)
    return list(ids[:count])


def of_ours(kind: int = _DEVICE_PROGRAM) -> set[int]:
    """The ids of every loaded program of this kernel that is of that kind and named as ours are."""
    found: set[int] = set()
    number = 0
    with contextlib.suppress(FileNotFoundError):  # after the last one
        while True:
            (number,) = struct.unpack_from("=I", _bpf(_NEXT_ID, struct.pack("=III", number, 0, 0))[1], 4)
            if _kind_and_name(number) == (kind, b"swarmcg"):
                found.add(number)
    return found


def loaded() -> set[int]:
    """The ids of all programs of ours, for devices and for packets, of this and of every other test."""
    return of_ours() | of_ours(ON_PACKETS)


def until_gone_since(before: set[int]) -> None:
    """Waits until none is left of what was loaded up to now; what another test loads from now on is its own.

    The kernel lets programs of a removed cgroup go a moment later, in a worker of its own.
    """
    made = loaded() - before
    until(lambda: made.isdisjoint(loaded()))


def _kind_and_name(number: int) -> tuple[int, bytes] | None:
    try:
        fd, _ = _bpf(_BY_ID, struct.pack("=III", number, 0, 0))
    except FileNotFoundError:  # gone meanwhile
        return None
    info = ctypes.create_string_buffer(80)
    try:
        _bpf(_INFO, struct.pack("=IIQ", fd, 80, ctypes.addressof(info)))
    finally:
        os.close(fd)
    (kind,) = struct.unpack_from("=I", info.raw)
    return kind, info.raw[64:].rstrip(b"\0")


def attach(directory: str | Path, code: bytes, flags: int, name: bytes = b"another") -> None:
    """Attaches a program as another tool would."""
    instructions, license_ = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"MIT")
    program, _ = _bpf(
        _LOAD,
        struct.pack(
            "=IIQQIIQII16sII",
            _DEVICE_PROGRAM,
            len(code) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(license_),
            *(0, 0, 0, 0, 0),
            name,
            0,
            _ON_DEVICES,
        ),
    )
    fd = os.open(directory, os.O_RDONLY)
    try:
        _bpf(_ATTACH, struct.pack("=IIII", fd, program, _ON_DEVICES, flags))
    finally:
        os.close(fd)
        os.close(program)
