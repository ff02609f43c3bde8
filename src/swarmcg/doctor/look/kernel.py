"""What the kernel can do, found out without changing anything."""

import contextlib
import errno
import os
import re
import resource
import sys
from typing import Final

from swarmcg.cgroup.device_filter import refusal
from swarmcg.cgroup.files import read_text
from swarmcg.doctor.seen import Kernel, Switch
from swarmcg.resources.hugetlb import page_size

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["look_at_kernel"]

_HUGE: Final = "/sys/kernel/mm/hugepages"


def look_at_kernel() -> Kernel:
    """The running kernel, as far as this user is shown it."""
    release = os.uname().release
    return Kernel(
        release=release,
        version=version(release),
        pidfd=_has_pidfd(),
        psi=_psi(),
        log=_log_is_readable(),
        bpf=_refusal_of_device_programs(),
        swap_bytes=_swap_bytes(),
        open_files=_hard_limit_of_open_files(),
        rdma=bool(_names("/sys/class/infiniband")),
        hugepages=_hugepages(),
    )


def _refusal_of_device_programs() -> int:
    refused = refusal()
    return 0 if refused is None else refused.errno or 0


def version(release: str) -> tuple[int, int]:
    """``6.1`` of ``6.1.0-44-amd64``; (0, 0) for what does not begin like that."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _psi() -> Switch:
    try:
        read_text("/proc/pressure/memory")
    except OSError as e:
        # With psi=0 the files are not made (psi_proc_init() in kernel/sched/psi.c, Linux 6.1), or refuse to be read.
        off = e.errno == errno.EOPNOTSUPP or "psi=0" in _text("/proc/cmdline").split()
        return "off" if off else "absent"
    return "on"


def _log_is_readable() -> bool:
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return bool(os.read(fd, 8192))  # a container may have put /dev/null in its place
    except OSError as e:
        return e.errno in {errno.EAGAIN, errno.EPIPE}
    finally:
        os.close(fd)


def _swap_bytes() -> int:
    found = re.search(r"^SwapTotal:\s+(\d+) kB$", _text("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _hard_limit_of_open_files() -> int:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def _hugepages() -> dict[str, int]:
    """How many huge pages of each size are reserved."""
    counts = {page_size(name): _text(f"{_HUGE}/{name}/nr_hugepages") for name in _names(_HUGE)}
    return {size: int(count) for size, count in counts.items() if size and count.isdigit()}


def _names(directory: str) -> frozenset[str]:
    with contextlib.suppress(OSError):
        return frozenset(os.listdir(directory))
    return frozenset()


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return read_text(path)
    return ""
