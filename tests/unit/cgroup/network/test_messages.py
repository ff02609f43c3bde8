"""The bytes that the kernel gets for the rules of a slice, and what of them counts when they are read back."""

import struct
from typing import Any, Final

import pytest
from pyroute2.netlink.nfnetlink.nftsocket import nft_rule_msg

from swarmcg.cgroup.network.messages import Chains, RuleMessage, batch, deleting, making, rule
from swarmcg.cgroup.network.nft import _said, _same
from swarmcg.cgroup.network.place import Label, Place, Shaped
from swarmcg.cgroup.network.program import program
from swarmcg.resources import Marking, NetworkPlan, Rate

PLACE: Final = Place(cgroup_id=0x1122334455667788, level=3, namespace=1, path="/a/b/bot.0123456789abcdef")
SLICE: Final = [
    ("socket", {"KEY": "NFT_SOCKET_CGROUPV2", "DREG": "NFT_REG_1", "LEVEL": 3}),
    ("cmp", struct.pack("=Q", PLACE.cgroup_id)),
]


def through(key: str, value: bytes) -> list[tuple[str, Any]]:
    return [("meta", {"KEY": key, "DREG": "NFT_REG_1"}), ("cmp", value)]


def marked(priority: int) -> list[tuple[str, Any]]:
    return [
        ("immediate", struct.pack("=I", priority)),
        ("meta", {"KEY": "NFT_META_PRIORITY", "SREG": "NFT_REG_1"}),
    ]


def named(interface: str) -> bytes:
    return interface.encode().ljust(16, b"\0")


def shown(chains: Chains) -> dict[str, list[list[tuple[str, Any]]]]:
    return {
        chain: [[_short(*said) for said in _said(one)] for one in rules] for chain, rules in chains.items()
    }


def _short(name: str, facts: dict[str, Any]) -> tuple[str, Any]:
    short = {key.removeprefix(f"NFTA_{name.upper()}_"): value for key, value in facts.items()}
    data = short.get("DATA", {})
    return name, data.get("NFTA_DATA_VALUE") or data.get("NFTA_DATA_VERDICT") or short


def rules(**asked: Any) -> dict[str, list[list[tuple[str, Any]]]]:
    shaped = Shaped(7, 0x53570002) if "egress" in asked else None
    return shown(program(Label(place=PLACE, shaped=shaped), NetworkPlan(**asked)))


def test_a_class_is_the_priority_of_whatever_the_slice_sends() -> None:
    assert rules(markings=(Marking(0x00100001),)) == {"output": [[*SLICE, *marked(0x00100001)]]}


def test_a_priority_is_that_of_packets_on_their_way_out_through_the_interface() -> None:
    assert rules(markings=(Marking(5, "eth0"), Marking(6, "fifteen-letters"))) == {
        "output": [
            [*SLICE, *through("NFT_META_OIFNAME", named("eth0")), *marked(5)],
            [*SLICE, *through("NFT_META_OIFNAME", named("fifteen-letters")), *marked(6)],
        ]
    }


def test_what_is_shaped_gets_the_class_of_its_interface() -> None:
    assert rules(egress=Rate("eth0", 5000)) == {
        "output": [[*SLICE, *through("NFT_META_OIF", struct.pack("=I", 7)), *marked(0x53570002)]]
    }


@pytest.mark.parametrize(("rate", "burst"), [(1_000_000, 0), (65536, 0), (2000, 63536)])
def test_what_comes_too_fast_is_dropped(rate: int, burst: int) -> None:
    limit = {"RATE": rate, "UNIT": 1, "BURST": burst, "TYPE": "NFT_LIMIT_PKT_BYTES", "FLAGS": 1}
    assert rules(ingress=Rate("eth0", rate)) == {
        "input": [
            [
                *SLICE,
                *through("NFT_META_IIFNAME", named("eth0")),
                ("limit", limit),
                ("immediate", {"NFTA_VERDICT_CODE": "NF_DROP"}),
            ]
        ]
    }


def test_nothing_is_done_for_nothing() -> None:
    assert rules() == {}


def test_a_socket_expression_has_the_kernels_own_numbers() -> None:
    message = rule(program(Label(place=PLACE), NetworkPlan(markings=(Marking(5),)))["output"][0])
    message.encode()
    # NFTA_SOCKET_KEY (1) = NFT_SOCKET_CGROUPV2 (3), NFTA_SOCKET_DREG (2) = 1, NFTA_SOCKET_LEVEL (3) = 3
    assert b"".join(
        struct.pack("=HH", 8, kind) + struct.pack(">I", value) for kind, value in ((1, 3), (2, 1), (3, 3))
    ) in bytes(message.data)


def test_pyroute2_itself_is_left_as_it_is() -> None:
    assert issubclass(RuleMessage, nft_rule_msg)
    known = nft_rule_msg.nft_expr.nft_socket
    assert ("NFTA_SOCKET_LEVEL", "be32") not in known.nla_map
    assert 3 not in known.socket_keys.ops


def test_a_transaction_is_framed_and_asks_for_every_answer() -> None:
    chains = program(Label(place=PLACE), NetworkPlan(markings=(Marking(5),), ingress=Rate("lo", 5000)))
    messages = batch([deleting("t"), *making("t", b"words", chains)])
    kinds = [message["header"]["type"] for message in messages]
    delete, table, chain, one = 0x0A02, 0x0A00, 0x0A03, 0x0A06
    assert kinds == [0x10, delete, table, chain, one, chain, one, 0x11]
    request, ack = 1, 4
    assert [message["header"]["flags"] & ack for message in messages] == [0, *[ack] * 6, 0]
    assert all(message["header"]["flags"] & request for message in messages)


ASKED: Final = [("output", [("cmp", {"A": 1, "B": {"C": b"x"}})])]


@pytest.mark.parametrize(
    ("read", "same"),
    [
        (ASKED, True),
        ([("output", [("cmp", {"A": 1, "B": {"C": b"x"}, "NEW": 9})])], True),
        ([("output", [("cmp", {"A": 2, "B": {"C": b"x"}})])], False),
        ([("output", [("cmp", {"A": 1, "B": {"C": b"y"}})])], False),
        ([("output", [("cmp", {"A": 1})])], False),
        ([("input", [("cmp", {"A": 1, "B": {"C": b"x"}})])], False),
        ([("output", [])], False),
        ([], False),
        ([*ASKED, *ASKED], False),
    ],
)
def test_rules_read_back_are_those_that_were_written(read: Any, same: bool) -> None:
    assert _same(ASKED, read) is same
