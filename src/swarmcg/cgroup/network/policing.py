"""The program of a slice that drops what it receives beyond a rate.

nftables drops that, too, but its bucket never holds less than a second's worth (nft_limit_init in
net/netfilter/nft_limit.c: tokens_max is unit * (rate + burst) / rate, and the unit is counted in whole seconds), so
what comes after a pause would have twice the rate for a second. The program goes by the interface's index and
vanishes with the slice; nftables' rule goes by its name, and so holds an interface that went and came back.

The index is one of a network namespace, and the program also drops what the slice receives through that index in
another one. The helper that would tell them apart, bpf_get_netns_cookie, is not for BPF_PROG_TYPE_CGROUP_SKB on
Linux 6.1, whose verifier says "unknown func"; on 6.18 it is.
"""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from typing import Final

from swarmcg.cgroup import bpf, programs
from swarmcg.errors import NetworkError
from swarmcg.resources import Lack, Rate
from swarmcg.resources.policer import assemble

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["lack", "policed", "unpoliced"]

_WHAT: Final = "The limit on what is received could not be put in force"
_NEEDS: Final = "only root may load programs for packets (CAP_BPF or CAP_SYS_ADMIN, and CAP_NET_ADMIN)"
_KNOWN: Final = {
    errno.EPERM: (_NEEDS, "Run as root, outside of user namespaces and of seccomp filters against bpf(2)."),
    errno.EACCES: (_NEEDS, "Run as root, outside of user namespaces and of seccomp filters against bpf(2)."),
    errno.EINVAL: (
        "this kernel has no programs for the packets of a cgroup, or none that compare and exchange",
        "Use Linux 5.12 or later with CONFIG_CGROUP_BPF.",
    ),
    errno.ENODEV: ("there is no such network interface", "Use a name from `ip link`."),
}
_ANY: Final = 1


@contextlib.contextmanager
def policed(rate: Rate | None, path: str) -> Iterator[None]:
    """The slice at a path has this rate, or none, in place of an earlier one; when the block raises, that is put back.

    Raises NetworkError; then the earlier one is in force.
    """
    with contextlib.ExitStack() as held:
        with _told(path):
            program = None if rate is None else _loaded(rate.bytes_a_second, _index(rate.interface))
            if program is not None:
                held.callback(os.close, program)
            shown = held.enter_context(programs.exchanged(bpf.INGRESS, path, program))
        if not shown.as_asked:
            raise NetworkError(
                _WHAT,
                path=path,
                value=shown.there,
                cause=f"the kernel shows the programs {shown.there} of ours where {shown.asked} was attached",
                remedy="See who else changes programs of this cgroup: bpftool cgroup show PATH.",
            )
        yield


def unpoliced(path: str) -> None:
    """Takes the rate off the slice; harmless when it has none, or is gone. Raises NetworkError."""
    with contextlib.suppress(FileNotFoundError), _told(path), programs.exchanged(bpf.INGRESS, path, None):
        pass


def lack() -> Lack | None:
    """Why the kernel takes no such program from this process; None when it does. One is loaded and let go."""
    try:
        os.close(_loaded(_ANY, _ANY))
    except OSError as e:
        cause, remedy = _explained(e)
        return Lack(f"no program for packets can be loaded: {cause} ({e.strerror})", remedy)
    return None


def _loaded(bytes_a_second: int, interface: int) -> int:
    number = bpf.number()
    try:
        return bpf.load(bpf.INGRESS, assemble(bytes_a_second, interface, number))
    finally:
        os.close(number)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as e:  # without an errno
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from e


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as e:
        cause, remedy = _explained(e)
        raise NetworkError(_WHAT, path=path, errno=e.errno, cause=cause, remedy=remedy) from e


def _explained(error: OSError) -> tuple[str, str]:
    if isinstance(error, bpf.RejectedError) and error.log:
        why = f"the kernel's verifier refused the program: {error.log}"
        return why, "Report this as an error of swarmcg."
    return _KNOWN.get(error.errno or 0, (error.strerror or "the kernel refused it", "See dmesg."))
