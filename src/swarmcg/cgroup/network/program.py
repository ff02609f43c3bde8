"""What a table of nftables says, for one slice: pure values, in the words of pyroute2."""

import struct
import sys
from typing import Any, Final

from pyroute2.netlink.nfnetlink.nftsocket import Cmp, Meta, Regs
from pyroute2.nftables.expressions import genex, verdict

from swarmcg.cgroup.network.messages import CGROUPV2, Chains, Expressions
from swarmcg.cgroup.network.place import Label, Place
from swarmcg.resources import NetworkPlan

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["program", "sample"]

_REGISTER: Final = Regs.NFT_REG_1
_DROP: Final = 0
_NAME_SIZE: Final = 16  # IFNAMSIZ
_BY_BYTES: Final = 1
_OVER: Final = 1
_LARGEST_PACKET: Final = 65536
"""What the kernel has put together from several of the wire's (GRO) counts as one packet here."""


def program(label: Label, rules: NetworkPlan) -> Chains:
    """The rules of each chain, in order; a later marking of a packet overrides an earlier one."""
    assert label.place is not None  # noqa: S101  only who makes a table asks
    of_slice = _of_slice(label.place)
    egress = [
        [
            *of_slice,
            *(_named(Meta.NFT_META_OIFNAME, mark.interface) if mark.interface else ()),
            *_mark(mark.priority),
        ]
        for mark in rules.markings
    ]
    if label.shaped is not None:
        through = _equal(Meta.NFT_META_OIF, struct.pack("=I", label.shaped.interface))
        egress.append([*of_slice, *through, *_mark(label.shaped.handle)])
    chains = {"output": egress} if egress else {}
    if rules.ingress is not None:
        through = _named(Meta.NFT_META_IIFNAME, rules.ingress.interface)
        chains["input"] = [[*of_slice, *through, _over(rules.ingress.bytes_a_second), *verdict(_DROP)]]
    return chains


def sample() -> Chains:
    """One of everything, for a cgroup that nothing is sent from: what a kernel must accept to be of use."""
    nothing = _of_slice(Place(cgroup_id=0, level=1, namespace=0, path="/"))
    return {"output": [[*nothing, *_mark(0)]], "input": [[*nothing, _over(_LARGEST_PACKET), *verdict(_DROP)]]}


def _of_slice(place: Place) -> Expressions:
    """Matches packets whose socket was made in the slice or below it."""
    return [
        genex("socket", {"key": CGROUPV2, "dreg": _REGISTER, "level": place.level}),
        _compare(struct.pack("=Q", place.cgroup_id)),
    ]


def _named(key: Meta, interface: str) -> Expressions:
    return _equal(key, interface.encode().ljust(_NAME_SIZE, b"\0"))


def _equal(key: Meta, value: bytes) -> Expressions:
    return [genex("meta", {"key": key, "dreg": _REGISTER}), _compare(value)]


def _compare(value: bytes) -> dict[str, Any]:
    compare: dict[str, Any] = genex("cmp", {"sreg": _REGISTER, "op": Cmp.NFT_CMP_EQ, "data": _data(value)})
    return compare


def _mark(priority: int) -> Expressions:
    return [
        genex("immediate", {"dreg": _REGISTER, "data": _data(struct.pack("=I", priority))}),
        genex("meta", {"key": Meta.NFT_META_PRIORITY, "sreg": _REGISTER}),
    ]


def _data(value: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _over(rate: int) -> dict[str, Any]:
    """Matches what is too much. The kernel's bucket holds a second's worth and the burst (nft_limit_init,
    net/netfilter/nft_limit.c, Linux 6.1), and must hold the largest packet, or that would never pass.
    """
    facts = {
        "rate": rate,
        "unit": 1,
        "burst": max(0, _LARGEST_PACKET - rate),
        "type": _BY_BYTES,
        "flags": _OVER,
    }
    limit: dict[str, Any] = genex("limit", facts)
    return limit
