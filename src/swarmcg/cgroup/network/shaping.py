"""HTB classes, one a slice, below a root qdisc of ours that is made with the first and removed with the last."""

import errno
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import TC_H_ROOT

from swarmcg.cgroup.network.place import Shaped
from swarmcg.errors import NetworkError
from swarmcg.resources import Networking, Rate

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["ROOT", "Shaper", "networking"]

ROOT: Final = 0x5357_0000
"""The handle of root qdiscs of ours, by which we know them again: 5357: is ``SW`` in ASCII."""
_MINORS: Final = range(1, 1 << 16)
_GONE: Final = {errno.ENOENT, errno.ENODEV, errno.EINVAL}
_BURSTS_A_SECOND: Final = 50
_LEAST_BURST: Final = 4096
_QUANTUM: Final = 16384
"""Only counts among classes that borrow, which ours do not; the kernel grumbles when it must guess one."""


def networking() -> Networking:
    """The interfaces of this network namespace, who owns their root qdiscs, and where the default routes go."""
    with Shaper() as shaper:
        names = shaper.names()
        taken = {q["index"]: _shown(q) for q in shaper.roots() if _is_others(q)}
        default = shaper.default()
        links = {name: taken.get(index) for index, name in names.items()}
        return Networking(links=links, default=names.get(default) if default is not None else None)


_LOOPBACK: Final = 0x8  # IFF_LOOPBACK of include/uapi/linux/if.h


class Shaper:
    """Traffic control of this network namespace. A context manager; for one thread, and one process at a time
    of those that change something.
    """

    def __init__(self) -> None:
        self._ip: Final = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ip.close()

    def names(self) -> dict[int, str]:
        """The name of every interface by its index."""
        return {link["index"]: link.get_attr("IFLA_IFNAME") for link in self._ip.get_links()}

    def roots(self) -> list[Any]:
        """The root qdisc of every interface."""
        return [q for q in self._ip.get_qdiscs() if q["parent"] == TC_H_ROOT]

    def default(self) -> int | None:
        """The one interface of the default routes: of IPv4, or else of IPv6. Never loopback: who wants local services
        to be slower names it.
        """
        loopback = {link["index"] for link in self._ip.get_links() if link["flags"] & _LOOPBACK}
        for family in (socket.AF_INET, socket.AF_INET6):
            routes = self._ip.get_default_routes(family=family)
            found = {index for route in routes for index in _outward(route)} - loopback
            if found:
                return found.pop() if len(found) == 1 else None
        return None

    def add(self, rate: Rate) -> Shaped:
        """A new class of this rate, read back, below our root on the interface; nothing is sent through it
        yet. Raises NetworkError when another program owns the root.
        """
        index = next((index for index, name in self.names().items() if name == rate.interface), None)
        if index is None:
            raise NetworkError(
                "There is no such network interface", path=rate.interface, remedy="Use a name from `ip link`."
            )
        self._take(index, rate.interface)
        used = {shaped.handle for shaped in self.shaped() if shaped.interface == index}
        shaped = Shaped(index, next(ROOT | minor for minor in _MINORS if ROOT | minor not in used))
        burst = max(_LEAST_BURST, rate.bytes_a_second // _BURSTS_A_SECOND)
        self._ip.tc(
            "add-class",
            "htb",
            index,
            shaped.handle,
            parent=ROOT,
            rate=rate.bytes_a_second,
            ceil=rate.bytes_a_second,
            burst=burst,
            cburst=burst,
            quantum=_QUANTUM,
        )
        self._check(shaped, rate)
        return shaped

    def _take(self, index: int, interface: str) -> None:
        """Makes our root qdisc, unless it is there. The kernel itself lets nobody replace a qdisc with a handle
        so, and everybody its own, which have none (tc_modify_qdisc in net/sched/sch_api.c, Linux 6.1).
        """
        root = next((q for q in self.roots() if q["index"] == index), None)
        if root is not None and _is_others(root):
            raise NetworkError(
                f"The root qdisc of {interface} is another program's",
                path=interface,
                value=_shown(root),
                remedy=f"Have that program shape the traffic (network.classID), or: tc qdisc del dev {interface} root",
            )
        if root is None or not _is_ours(root):
            self._ip.tc("add", "htb", index, ROOT, default=0)

    def holds(self, shaped: Shaped, rate: Rate) -> bool:
        """Whether this class is there, with this rate, on an interface of this name."""
        named = self.names().get(shaped.interface) == rate.interface
        return named and self._rates(shaped) == (rate.bytes_a_second, rate.bytes_a_second)

    def _rates(self, shaped: Shaped) -> tuple[int | None, int | None]:
        """Its rate and ceil; None for both where there is no such class."""
        there = next((c for c in self._classes(shaped.interface) if c["handle"] == shaped.handle), None)
        facts = there.get_attr("TCA_OPTIONS").get_attr("TCA_HTB_PARMS") if there is not None else {}
        return facts.get("rate"), facts.get("ceil")

    def _check(self, shaped: Shaped, rate: Rate) -> None:
        shown = self._rates(shaped)
        if shown != (rate.bytes_a_second, rate.bytes_a_second):
            raise NetworkError(
                "The HTB class was taken differently by the kernel",
                path=str(shaped),
                value=rate.bytes_a_second,
                cause=f"its rate and ceil read back as {shown}",
                remedy="Ask for a rate that this kernel can hold.",
            )

    def shaped(self) -> list[Shaped]:
        """Every class of ours."""
        return [
            Shaped(root["index"], c["handle"])
            for root in self.roots()
            if _is_ours(root)
            for c in self._classes(root["index"])
        ]

    def _classes(self, index: int) -> list[Any]:
        return list(self._ip.get_classes(index=index))

    def keep(self, used: set[Shaped]) -> None:
        """Removes every class of ours but these, and our roots that have none left."""
        for root in self.roots():
            if _is_ours(root):
                index = root["index"]
                there = {Shaped(index, c["handle"]) for c in self._classes(index)}
                for shaped in there - used:
                    self._delete("del-class", index, shaped.handle, ROOT)
                if not there & used:
                    self._delete("del", index, ROOT, TC_H_ROOT)

    def _delete(self, command: str, index: int, handle: int, parent: int) -> None:
        try:
            self._ip.tc(command, index=index, handle=handle, parent=parent)
        except NetlinkError as e:
            if e.code not in _GONE:  # an interface takes its qdiscs with it at any time
                raise


def _is_ours(qdisc: Any) -> bool:
    return bool(qdisc["handle"] == ROOT and qdisc.get_attr("TCA_KIND") == "htb")


def _is_others(qdisc: Any) -> bool:
    """A qdisc without a handle is what the kernel gave the interface: fq_codel, pfifo_fast, mq, noqueue."""
    return bool(qdisc["handle"] and not _is_ours(qdisc))


def _shown(qdisc: Any) -> str:
    return f"{qdisc.get_attr('TCA_KIND')} {qdisc['handle'] >> 16:x}:"


def _outward(route: Any) -> Iterator[int]:
    index = route.get_attr("RTA_OIF")
    if index is not None:
        yield index
    for hop in route.get_attr("RTA_MULTIPATH") or ():
        yield hop["oif"]
