"""A local network for one test: two network namespaces of its own, joined by a cable of two ends.

The test and all that it starts are ``here``; the other end is ``there``. Nothing of the machine's own network
is touched.
"""

import contextlib
import ctypes
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.nfnetlink.nftsocket import NFPROTO_INET, NFTSocket
from pyroute2.netlink.rtnl import TC_H_ROOT
from pyroute2.nftables.main import NFTables

from swarmcg.cgroup.network.messages import batch, deleting, making

CABLE: Final = "cable0"
SECOND: Final = "cable1"
HERE: Final = {CABLE: "10.213.0.2", SECOND: "10.214.0.2"}
THERE: Final = {CABLE: "10.213.0.1", SECOND: "10.214.0.1"}
_NEWNET: Final = 0x4000_0000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Lan:
    """The two namespaces, as descriptors."""

    def __init__(self, here: int, there: int) -> None:
        self._here: Final = here
        self._there: Final = there

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """What is made in the block, is made at the other end; sockets stay there."""
        _enter(self._there)
        try:
            yield
        finally:
            _enter(self._here)

    def plug(self, ip: IPRoute, name: str) -> None:
        """Makes a cable, of which ``ip`` is here."""
        ip.link("add", ifname=name, kind="veth", peer={"ifname": name, "net_ns_fd": self._there})
        _up(ip, name, HERE[name])
        with self.there(), IPRoute() as other:
            _up(other, name, THERE[name])

    def replug(self, name: str) -> None:
        """Takes a cable away and makes another of its name."""
        with IPRoute() as ip:
            before = index_of(ip, name)
            ip.link("del", index=before)
            self.plug(ip, name)
            assert index_of(ip, name) != before

    def listen(self, kind: socket.SocketKind = socket.SOCK_STREAM, cable: str = CABLE) -> socket.socket:
        with self.there():
            server = socket.socket(socket.AF_INET, kind)
        server.settimeout(30)
        server.bind((THERE[cable], 0))
        if kind == socket.SOCK_STREAM:
            server.listen()
        return server

    def connect(self, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        with self.there():
            client = socket.socket(socket.AF_INET, kind)
        client.settimeout(30)
        client.connect((HERE[CABLE], port))
        return client


@contextlib.contextmanager
def lan() -> Iterator[Lan]:
    before = _namespace()
    opened = [before]
    try:
        for _ in range(2):
            _checked(_LIBC.unshare(_NEWNET))
            opened.append(_namespace())
        network = Lan(here=opened[2], there=opened[1])
        with IPRoute() as ip:
            _up(ip, "lo")
            for name in HERE:
                network.plug(ip, name)
        yield network
    finally:
        _enter(before)
        for fd in opened:
            os.close(fd)


def received(sock: socket.socket, seconds: float) -> float:
    """Bytes a second that arrive from now on."""
    start = time.monotonic()
    count = 0
    while time.monotonic() - start < seconds:
        count += len(sock.recv(1 << 18))
    return count / (time.monotonic() - start)


def tables() -> list[str]:
    """The tables of nftables here, by pyroute2 as it is."""
    with NFTables(nfgen_family=1) as nft:
        return [table.get_attr("NFTA_TABLE_NAME") for table in nft.get_tables()]


def priorities(table: str) -> list[int]:
    """The numbers that a table's rules put into registers."""
    with NFTables(nfgen_family=1) as nft:
        rules = [rule for rule in nft.get_rules() if rule.get_attr("NFTA_RULE_TABLE") == table]
    said = (e for rule in rules for e in rule.get_attr("NFTA_RULE_EXPRESSIONS"))
    values = [
        e.get_attr("NFTA_EXPR_DATA").get_attr("NFTA_IMMEDIATE_DATA").get_attr("NFTA_DATA_VALUE")
        for e in said
        if e.get_attr("NFTA_EXPR_NAME") == "immediate"
    ]
    return [int.from_bytes(value, sys.byteorder) for value in values if value is not None]


@contextlib.contextmanager
def foreign_table(name: str, user_data: bytes) -> Iterator[None]:
    """A table of somebody else."""
    with NFTSocket(nfgen_family=NFPROTO_INET) as nft:
        nft.nlm_request_batch(batch(making(name, user_data, {})))
        yield
    remove_table(name)


def remove_table(name: str) -> None:
    """Removes a table behind its owner's back."""
    with NFTSocket(nfgen_family=NFPROTO_INET) as nft:
        nft.nlm_request_batch(batch([deleting(name)]))


def roots(name: str = CABLE) -> list[str]:
    """The qdiscs of an interface that somebody put there: the kernel's own have no handle."""
    with IPRoute() as ip:
        there = list(ip.get_qdiscs(index=index_of(ip, name)))
    return [f"{q.get_attr('TCA_KIND')} {q['handle'] >> 16:x}:" for q in there if q["handle"]]


def classes(name: str = CABLE) -> dict[str, int]:
    """The bytes that each HTB class of an interface has sent."""
    with IPRoute() as ip:
        found = list(ip.get_classes(index=index_of(ip, name)))
    return {
        f"{c['handle'] >> 16:x}:{c['handle'] & 0xFFFF:x}": c.get_attr("TCA_STATS2").get_attr(
            "TCA_STATS_BASIC"
        )["bytes"]
        for c in found
    }


@contextlib.contextmanager
def operators_classes(name: str, *minors: int) -> Iterator[None]:
    """An operator's own HTB set-up: root 1:, and a class of 100 Mbit/s for each minor number."""
    with IPRoute() as ip:
        index = index_of(ip, name)
        ip.tc("add", "htb", index, 0x10000, default=0)
        for minor in minors:
            rate = {"rate": 12_500_000, "ceil": 12_500_000, "burst": 65536, "cburst": 65536, "quantum": 9000}
            ip.tc("add-class", "htb", index, 0x10000 | minor, parent=0x10000, **rate)
        yield
        ip.tc("del", index=index, handle=0x10000, parent=TC_H_ROOT)


def index_of(ip: IPRoute, name: str) -> int:
    (index,) = ip.link_lookup(ifname=name)
    return int(index)


def _up(ip: IPRoute, name: str, address: str | None = None) -> None:
    index = index_of(ip, name)
    if address is not None:
        ip.addr("add", index=index, address=address, prefixlen=24)
    ip.link("set", index=index, state="up")


def _namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(fd: int) -> None:
    _checked(_LIBC.setns(fd, _NEWNET))


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
