"""The device program of a slice: which device nodes its processes may open and make.

It is attached to the slice's outer directory, holds for every cgroup below, and vanishes with the directory;
no crash leaves it behind. A process is judged by the programs of all its ancestors, and each of them must
allow what it does. Ours are told from others' by name, and others' are left alone.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from swarmcg.cgroup import bpf
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
    with _told(path), _directory(path) as cgroup, contextlib.ExitStack() as held:
        before = _ours(cgroup, held)
        program = None if rules is None else _loaded(rules, held)
        _replace(cgroup, program, before)
        try:
            _confirm(cgroup, path, program)
        except BaseException:
            _replace(cgroup, before[0] if before else None, _ours(cgroup, held))
            raise


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
    """Why the kernel takes no device program from this process; None when it does. One is loaded and let go."""
    try:
        os.close(bpf.load(assemble(DeviceRules(allow=True))))
    except OSError as e:
        return e
    return None


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
    with contextlib.suppress(OSError), _directory(directory) as cgroup:
        return bpf.attached(cgroup)
    return bpf.Attached((), 0)


def _of_v1(proc: str) -> tuple[str, ...]:
    """On a hybrid host we, and with us the bots, may be in a cgroup of version 1's devices controller."""
    with contextlib.suppress(OSError):
        for line in read_text(f"{proc}/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if "devices" in controllers.split(",") and path != "/":
                return (f"{path} of cgroup v1",)
    return ()


def _loaded(rules: DeviceRules, held: contextlib.ExitStack) -> int:
    program = bpf.load(assemble(rules))
    held.callback(os.close, program)
    return program


def _ours(cgroup: int, held: contextlib.ExitStack) -> list[int]:
    """Descriptors of our programs on this cgroup, for as long as they are held."""
    found = []
    for number in bpf.attached(cgroup).ids:
        with contextlib.suppress(FileNotFoundError):
            program = bpf.by_id(number)
            held.callback(os.close, program)
            if bpf.identity(program)[1] == bpf.NAME:
                found.append(program)
    return found


def _replace(cgroup: int, program: int | None, before: Sequence[int]) -> None:
    """One of ours, or none, where there were these. More than one is there only when we were killed before
    Linux 5.6, between attaching the new one and detaching the old one.
    """
    kept = None if program is None else bpf.identity(program)[0]
    rest = [other for other in before if bpf.identity(other)[0] != kept]
    if program is not None and len(rest) == len(before):
        bpf.attach(cgroup, program, instead_of=rest.pop(0) if rest else None)
    for other in rest:
        bpf.detach(cgroup, other)


def _confirm(cgroup: int, path: str, program: int | None) -> None:
    """Raises CgroupError unless the program is the one of ours that the kernel shows."""
    with contextlib.ExitStack() as held:
        shown = [bpf.identity(other)[0] for other in _ours(cgroup, held)]
    wanted = [] if program is None else [bpf.identity(program)[0]]
    if shown != wanted:
        raise CgroupError(
            "The device rules were taken differently by the kernel",
            path=path,
            value=shown,
            cause=f"it shows the programs {shown} of ours where {wanted} was attached",
            remedy="See who else changes programs of this cgroup: bpftool cgroup show PATH.",
        )


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


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
