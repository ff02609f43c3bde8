"""Verdicts on what the kernel itself can do."""

import errno
import os
from collections.abc import Iterator
from typing import Final

from swarmcg.doctor.check import Check, fail, ok, warn
from swarmcg.doctor.seen import Linux

__all__ = ["age", "devices", "log", "network", "open_files", "pidfd", "pressure"]

Version = tuple[int, int]

_FILES: Final[tuple[tuple[Version, str, str], ...]] = (
    (
        (5, 2),
        "cgroup.freeze",
        "processes cannot be stopped while they are signalled, and one that forks may be missed",
    ),
    ((5, 14), "cgroup.kill", "a slice is frozen and its processes are killed one by one, which is slower"),
)
"""Since when a file is there (Documentation/admin-guide/cgroup-v2.rst and the commits that added it), and what is lost
without it.
"""
_FIGURES: Final[tuple[tuple[Version, str], ...]] = (
    ((5, 19), "memory_peak_bytes"),
    ((6, 1), "pids_peak"),
    ((6, 5), "swap_peak_bytes"),
)
"""Since when a figure of the exit report is known."""
_USER_ATTRIBUTES: Final = (5, 7)
_DESCRIPTORS_A_BOT: Final = 5
_FEW_BOTS: Final = 100


def pidfd(host: Linux) -> Iterator[Check]:
    """Linux 5.3: without it a pid may be another process's by the time that it is signalled."""
    if not host.kernel.pidfd:
        yield fail(
            "pidfd",
            f"Linux {host.kernel.release} has no pidfd_open (5.3), or a filter of system calls refuses it: "
            "a process cannot be held on to, so nothing is started",
            "Use Linux 5.14 or later. In a container: allow pidfd_open in its seccomp profile.",
        )


def age(host: Linux) -> Iterator[Check]:
    """What this kernel is too old for."""
    lost = [
        f"no {name} ({_dotted(since)}): {loss}" for since, name, loss in _FILES if not _has(host, name, since)
    ]
    if host.uid and host.kernel.version < _USER_ATTRIBUTES:
        why = "no user attributes on cgroups (5.7), in which a bot's state is kept without root"
        yield fail(
            "kernel", f"Linux {host.kernel.release}: {why}", "Use Linux 5.14 or later, or run as root."
        )
    elif lost:
        yield warn("kernel", f"Linux {host.kernel.release}: {'; '.join(lost)}", "Use Linux 5.14 or later.")
    else:
        unknown = [f"{name} ({_dotted(since)})" for since, name in _FIGURES if host.kernel.version < since]
        but = f"; reports do not know {', '.join(unknown)}" if unknown else ""
        yield ok("kernel", f"Linux {host.kernel.release}{but}")


def _has(host: Linux, name: str, since: Version) -> bool:
    """Whether cgroups have a file: as seen, since distributions bring files to older kernels; else by the version."""
    if host.cgroups.files is not None:
        return name in host.cgroups.files
    return host.kernel.version >= since


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def pressure(host: Linux) -> Iterator[Check]:
    """Pressure stall information."""
    if host.kernel.psi == "on":
        yield ok("psi", "the kernel counts stalls: reports know the pressure in a slice")
        return
    why = {
        "off": "pressure stall information is switched off (psi=0)",
        "absent": "this kernel has no pressure stall information, or has it off by default",
        "on": "",
    }[host.kernel.psi]
    yield warn(
        "psi",
        f"{why}: reports do not know the pressure in a slice",
        "Boot with psi=1 on the kernel command line (a kernel with CONFIG_PSI).",
    )


def log(host: Linux) -> Iterator[Check]:
    """The kernel log is the best evidence of an out-of-memory kill."""
    lost = "whether a main process was killed for want of memory is told by counters, which may not tell"
    if host.cgroups.pid_namespace:
        why = f"the pids in the kernel log are not those of this PID namespace: {lost}"
        yield warn("kernel-log", why, "Run swarmcg on the host itself, or the container with --pid=host.")
    elif not host.kernel.log:
        why = f"/dev/kmsg cannot be read: {lost}"
        yield warn("kernel-log", why, "Run as root, or: sysctl kernel.dmesg_restrict=0")
    else:
        yield ok("kernel-log", "/dev/kmsg can be read: it is the evidence of out-of-memory kills")


def devices(host: Linux) -> Iterator[Check]:
    """Device rules are a BPF program on the slice."""
    refused = host.kernel.bpf
    if not refused:
        yield ok("devices", "the kernel takes BPF programs that decide about devices")
    elif refused == errno.EPERM:
        why = "this user may load no BPF program: device rules cannot be enforced"
        yield warn("devices", why, "Run as root, or with CAP_BPF and CAP_NET_ADMIN.")
    else:
        why = f"the kernel takes no BPF program for devices ({os.strerror(refused)}): device rules cannot be enforced"
        yield warn("devices", why, "Use a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF.")


def network(host: Linux) -> Iterator[Check]:
    """Network limits are nftables rules that match a slice by its path, and for what it receives a program."""
    lack, ingress = host.network.lack, host.network.ingress
    if lack is None and ingress is not None:
        yield warn("network", f"what is received cannot be limited: {ingress.why}", ingress.remedy)
    elif lack is None:
        yield ok("network", "nftables tells the packets of a slice: network limits can be enforced")
    else:
        yield warn("network", f"network limits cannot be enforced: {lack.why}", lack.remedy)


def open_files(host: Linux) -> Iterator[Check]:
    """A supervisor raises its limit to the hard one; each bot takes some."""
    most = host.kernel.open_files
    bots = most // _DESCRIPTORS_A_BOT
    if bots >= _FEW_BOTS:
        yield ok("open-files", f"room for {'any number of' if bots > 1 << 20 else bots} bots")
    else:
        yield warn(
            "open-files",
            f"the hard limit of open files is {most}: room for {bots} bots",
            "ulimit -Hn 20000 as root, or LimitNOFILE=20000 in the unit.",
        )
