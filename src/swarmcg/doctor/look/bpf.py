"""Whether the kernel takes a BPF program that decides about devices: one is loaded, attached nowhere, and let go."""

import ctypes
import errno
import os
import platform
import sys
from typing import Final

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["device_program"]

_NUMBER: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
"""bpf(2) by architecture; include/uapi/asm-generic/unistd.h, arch/*/kernel/syscalls/syscall.tbl."""
_PROG_LOAD: Final = 5
_CGROUP_DEVICE: Final = 15
_ALLOW: Final = bytes.fromhex("b700000001000000" + "9500000000000000")
"""``r0 = 1; exit``: every access is allowed."""


class _Load(ctypes.Structure):
    """union bpf_attr for BPF_PROG_LOAD, as far as Linux 4.10 has it (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log", ctypes.c_uint32 * 4),
    )


def device_program() -> int:
    """0 if the kernel took it, else the errno of its refusal. The program is gone when this returns."""
    number = _NUMBER.get(platform.machine())
    if number is None:
        return errno.ENOSYS
    program, text = ctypes.create_string_buffer(_ALLOW), ctypes.create_string_buffer(b"Apache-2.0")
    asked = _Load(_CGROUP_DEVICE, len(_ALLOW) // 8, ctypes.addressof(program), ctypes.addressof(text))
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    fd = call(
        ctypes.c_long(number),
        ctypes.c_int(_PROG_LOAD),
        ctypes.byref(asked),
        ctypes.c_uint(ctypes.sizeof(asked)),
    )
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0
