"""bpf(2) as far as programs of a cgroup need it: load, attach, detach, and look what is attached.

Neither glibc nor the standard library wraps this system call, so ctypes makes it. The structs are those of
include/uapi/linux/bpf.h; a kernel takes a shorter union bpf_attr than its own, and the missing rest as zeros.
Programs are descriptors, closed at exec, which belong to the caller. All functions raise OSError unless they
say otherwise.
"""

import contextlib
import ctypes
import errno
import functools
import os
import struct
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from swarmcg.resources.instruction import INSTRUCTION_BYTES

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = [
    "ALLOW_MULTI",
    "ALLOW_OVERRIDE",
    "DEVICES",
    "INGRESS",
    "NAME",
    "Attached",
    "Kind",
    "RejectedError",
    "attach",
    "attached",
    "by_id",
    "detach",
    "identity",
    "load",
    "number",
]


class Kind(NamedTuple):
    """What programs of a cgroup are run for: BPF_PROG_TYPE_… and BPF_CGROUP_…."""

    type: int
    where: int


DEVICES: Final = Kind(15, 6)  # BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, Linux 4.15
INGRESS: Final = Kind(8, 0)  # BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_INGRESS, Linux 4.10

NAME: Final = b"swarmcg"
"""The name of our programs, by which they are told from others' (bpftool shows it)."""

ALLOW_OVERRIDE: Final = 1  # BPF_F_ALLOW_OVERRIDE
ALLOW_MULTI: Final = 2  # BPF_F_ALLOW_MULTI
_REPLACE: Final = 4  # BPF_F_REPLACE, Linux 5.6

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH = 5, 8, 9
_PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 13, 15, 16
_MAP_CREATE: Final = 0
_ARRAY: Final = 2  # BPF_MAP_TYPE_ARRAY
_MOST_ATTACHED: Final = 64  # BPF_CGROUP_MAX_PROGS in include/linux/bpf-cgroup-defs.h
_LICENSE: Final = b"Apache-2.0"  # only helpers reserved for GPL programs would ask for another
_LOG_BYTES: Final = 1 << 16
_LOG_TAIL: Final = 3
_TRIES: Final = 5  # the verifier gives up for a signal that is pending (EAGAIN), as libbpf knows too
_SYSCALL: Final = {  # __NR_bpf
    "aarch64": 280,
    "armv7l": 386,
    "i386": 357,
    "i686": 357,
    "loongarch64": 280,
    "ppc64le": 361,
    "riscv64": 280,
    "s390x": 351,
    "x86_64": 321,
}


class RejectedError(OSError):
    """The kernel did not load a program; ``log`` is the end of what its verifier said, possibly empty."""

    def __init__(self, number: int, log: str) -> None:
        super().__init__(number, os.strerror(number))
        self.log: Final = log


class Attached(NamedTuple):
    """The programs of one kind of one cgroup, by id, and the flags (``ALLOW_…``) that they were attached with."""

    ids: tuple[int, ...]
    flags: int


def number() -> int:
    """A map with one entry of 64 bits, which is 0. A program that names it keeps it, whoever closes the descriptor."""
    return _bpf(_MAP_CREATE, struct.pack("=IIIIIII16s", _ARRAY, 4, 8, 1, 0, 0, 0, NAME))[0]


def load(kind: Kind, program: bytes) -> int:
    """Loads a program, which is in force nowhere yet. Raises RejectedError."""
    try:
        return _load(kind, program)
    except OSError as e:
        code = e.errno or 0
    # Once more for the reason: with a log buffer a load can fail for the buffer alone (ENOSPC).
    log = ctypes.create_string_buffer(_LOG_BYTES)
    with contextlib.suppress(OSError):
        os.close(_load(kind, program, log))
    lines = log.value.decode(errors="replace").strip().splitlines()
    raise RejectedError(code, "; ".join(lines[-_LOG_TAIL:]))


def _load(kind: Kind, program: bytes, log: "ctypes.Array[ctypes.c_char] | None" = None) -> int:
    code, license_ = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(_LICENSE)
    told = (1, _LOG_BYTES, ctypes.addressof(log)) if log is not None else (0, 0, 0)
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        kind.type,
        len(program) // INSTRUCTION_BYTES,
        ctypes.addressof(code),
        ctypes.addressof(license_),
        *told,
        0,  # kern_version
        0,  # prog_flags
        NAME,
        0,  # prog_ifindex
        kind.where,  # expected_attach_type
    )
    for _ in range(_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            return _bpf(_PROG_LOAD, attributes)[0]
    return _bpf(_PROG_LOAD, attributes)[0]


def attach(kind: Kind, cgroup: int, program: int, *, instead_of: int | None = None) -> None:
    """Attaches a program to a cgroup's directory, beside those that others attached.

    ``instead_of`` is one that is attached there and goes at the same moment; on kernels before 5.6 it goes a
    moment later, and both must agree meanwhile. When this fails, nothing has changed.
    """
    if instead_of is None:
        _bpf(_PROG_ATTACH, struct.pack("=IIIII", cgroup, program, kind.where, ALLOW_MULTI, 0))
        return
    try:
        _bpf(
            _PROG_ATTACH,
            struct.pack("=IIIII", cgroup, program, kind.where, ALLOW_MULTI | _REPLACE, instead_of),
        )
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        attach(kind, cgroup, program)
        try:
            detach(kind, cgroup, instead_of)
        except OSError:
            detach(kind, cgroup, program)
            raise


def detach(kind: Kind, cgroup: int, program: int) -> None:
    """Takes a program off a cgroup. It is gone when nobody holds a descriptor of it."""
    _bpf(_PROG_DETACH, struct.pack("=IIII", cgroup, program, kind.where, 0))


def attached(kind: Kind, cgroup: int) -> Attached:
    """What is attached to this very cgroup, by whomever; not what its ancestors have."""
    ids = (ctypes.c_uint32 * _MOST_ATTACHED)()
    layout = "=IIIIQI4x"
    asked = struct.pack(layout, cgroup, kind.where, 0, 0, ctypes.addressof(ids), _MOST_ATTACHED)
    _, answer = _bpf(_PROG_QUERY, asked)
    *_, flags, _, count = struct.unpack(layout, answer)
    return Attached(tuple(ids[:count]), flags)


def by_id(number: int) -> int:
    """A descriptor of a program. Raises FileNotFoundError when it is gone by now."""
    return _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))[0]


def identity(program: int) -> tuple[int, bytes]:
    """The id of a program, unique until the next reboot, and its name."""
    layout = "=II8sIIQQQIIQ16s"  # the beginning of struct bpf_prog_info
    info = ctypes.create_string_buffer(struct.calcsize(layout))
    _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program, len(info), ctypes.addressof(info)))
    _, number, *_, name = struct.unpack(layout, info.raw)
    return number, name.rstrip(b"\0")


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The system call's result, and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _syscall()(command, buffer, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result, buffer.raw


@functools.cache
def _syscall() -> Callable[..., int]:
    number = _SYSCALL.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long)
    function.restype = ctypes.c_long
    return functools.partial(function, number)
