"""The device program of a slice: which device nodes its processes may open and make.

It is attached to the slice's outer directory, holds for every cgroup below, and vanishes with the directory;
no crash leaves it behind. A process is judged by the programs of all its ancestors, and each of them must
allow what it does. Ours are told from others' by name, and others' are left alone.
"""

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from swarmcg.cgroup import bpf, programs
from swarmcg.cgroup.files import read_text
from swarmcg.errors import CgroupError
from swarmcg.resources import DeviceControl, DeviceRules, Lack
from swarmcg.resources.device_program import assemble

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["control", "exchange", "refusal"]

_WHAT: Final = "The device rules could not be put in force"
_NEEDS: Final = (
    "only root may do that (CAP_SYS_ADMIN), outside of user namespaces and of seccomp filters against bpf(2)"
)
_AS_ROOT: Final = (
    "Run as root. On kernels before 5.11 the limit on locked memory counts, too: ulimit -l unlimited."
)
_NO_KERNEL: Final = (
    "this kernel has no device programs for cgroups",
    "Use Linux 4.15 or later with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF.",
)
_KNOWN: Final = {
    errno.EPERM: (_NEEDS, _AS_ROOT),
    errno.EACCES: (_NEEDS, _AS_ROOT),
    errno.ENOSYS: _NO_KERNEL,
    errno.EINVAL: _NO_KERNEL,
    errno.E2BIG: (
        "the program is too long for this kernel, or 64 others are attached to this cgroup",
        "Name fewer devices: a rule without minor covers all nodes of a driver.",
    ),
}


def exchange(path: str, rules: DeviceRules | None) -> None:
    """Puts exactly these rules in force for the cgroup at a path, in place of any that it had from us; None
    for no rules of ours.

    At no moment is it without the earlier rules or these. Files that are open stay open. Two exchanges of
    one slice exclude each other by the caller's means. Raises CgroupError; then the earlier rules are in force.
    """
    with (
        _told(path),
        _loaded(rules) as program,
        programs.exchanged(bpf.DEVICES, path, program) as shown,
    ):
        if not shown.as_asked:
            raise CgroupError(
                "The device rules were taken differently by the kernel",
                path=path,
                value=shown.there,
                cause=f"it shows the programs {shown.there} of ours where {shown.asked} was attached",
                remedy="See who else changes programs of this cgroup: bpftool cgroup show PATH.",
            )


def control(directories: Sequence[str], proc: str = "/proc") -> DeviceControl:
    """What can be done about devices below the last of these directories, which begin with the hierarchy's top.

    Loads a program to see whether that may be done, and attaches it nowhere. Changes nothing, and raises nothing.
    """
    if (refused := refusal()) is not None:
        cause, cure = _explained(refused)
        return DeviceControl(
            lack=Lack(f"no device program can be loaded: {cause} ({refused.strerror})", cure)
        )
    seen = [(directory, _look(directory)) for directory in reversed(directories)]
    above = tuple(directory for directory, found in seen if found.ids)
    return DeviceControl(lack=_closed(seen), above=above + _of_v1(proc))


def refusal() -> OSError | None:
    """Why the kernel takes no device program from this process; None when it does. One is loaded and let go, for the
    first time that this succeeds: a process that could may do it again while it is the same user.
    """
    try:
        _check_loading(os.geteuid())
    except OSError as e:
        return e
    return None


@functools.cache
def _check_loading(_user: int) -> None:
    os.close(bpf.load(bpf.DEVICES, assemble(DeviceRules(allow=True))))


def _closed(seen: Iterable[tuple[str, bpf.Attached]]) -> Lack | None:
    """Why nothing may be attached below, from the nearest cgroup with a say in it (hierarchy_allows_attach() in
    kernel/bpf/cgroup.c).
    """
    for directory, found in seen:
        if found.flags & bpf.ALLOW_MULTI:
            return None
        if found.ids:
            if found.flags & bpf.ALLOW_OVERRIDE:
                return None
            return Lack(
                f"the device program of {directory} allows none below it",
                "Have its owner attach it with BPF_F_ALLOW_MULTI, as systemd does.",
            )
    return None


def _look(directory: str) -> bpf.Attached:
    with contextlib.suppress(OSError), programs.directory(directory) as cgroup:
        return bpf.attached(bpf.DEVICES, cgroup)
    return bpf.Attached((), 0)


def _of_v1(proc: str) -> tuple[str, ...]:
    """On a hybrid host we, and with us the bots, may be in a cgroup of version 1's devices controller."""
    with contextlib.suppress(OSError):
        for line in read_text(f"{proc}/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if "devices" in controllers.split(",") and path != "/":
                return (f"{path} of cgroup v1",)
    return ()


@contextlib.contextmanager
def _loaded(rules: DeviceRules | None) -> Iterator[int | None]:
    if rules is None:
        yield None
        return
    program = bpf.load(bpf.DEVICES, assemble(rules))
    try:
        yield program
    finally:
        os.close(program)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Turns an OSError of the block into a CgroupError."""
    try:
        yield
    except OSError as e:
        cause, cure = _explained(e)
        raise CgroupError(_WHAT, path=path, errno=e.errno, cause=cause, remedy=cure) from e


def _explained(error: OSError) -> tuple[str, str]:
    if isinstance(error, bpf.RejectedError) and error.log:
        return (
            f"the kernel's verifier refused the program: {error.log}",
            "Report this as an error of swarmcg.",
        )
    return _KNOWN.get(error.errno or 0, (error.strerror or "the kernel refused it", "See dmesg."))
