"""What the kernel's refusals over netlink mean."""

import contextlib
import errno
import sys
from collections.abc import Iterator
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError

from swarmcg.errors import NetworkError

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["network_errors"]


@contextlib.contextmanager
def network_errors(what: str, path: str | None) -> Iterator[None]:
    """Turns what pyroute2 and the kernel raise in the block into a NetworkError that says what helps."""
    try:
        yield
    except (NetlinkError, OSError) as e:
        number = e.code if isinstance(e, NetlinkError) else e.errno
        cause, remedy = _KNOWN.get(number or 0, (None, None))
        raise NetworkError(what, path=path, errno=number, cause=cause or str(e), remedy=remedy) from e


_KNOWN: Final = {
    errno.EPERM: (
        "this user may not change the packet filter or the traffic control of this network namespace",
        "Run as root (CAP_NET_ADMIN).",
    ),
    errno.ENOENT: (
        "the kernel lacks a part of nftables or traffic control, or what was to be changed vanished meanwhile",
        "modprobe -a nf_tables nft_socket nft_limit sch_htb, and try again.",
    ),
    errno.EOPNOTSUPP: (
        "the kernel cannot tell packets by their cgroup",
        "Use Linux 5.13 or later with CONFIG_NFT_SOCKET and CONFIG_SOCK_CGROUP_DATA.",
    ),
    errno.ENODEV: (
        "the network interface vanished meanwhile",
        "See `ip link`, and try again.",
    ),
    errno.EEXIST: (
        "another program was faster to make the same thing",
        "Try again; `nft list tables` and `tc qdisc show` show what is there.",
    ),
    errno.EAGAIN: (
        "another swarmcg changes packet rules and does not come to an end",
        "See who holds the lock network.lock in swarmcg's runtime directory.",
    ),
}
