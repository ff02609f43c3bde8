"""The messages of nfnetlink, as pyroute2 encodes them.

pyroute2 0.9.7 does not know the key NFT_SOCKET_CGROUPV2 (Linux 5.13) and its level. The message class below
adds them to a copy of its own, so that nobody else's pyroute2 is changed.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pyroute2.netlink import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFPROTO_INET,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
    nft_chain_msg,
    nft_rule_msg,
    nft_table_msg,
)

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = [
    "CGROUPV2",
    "Chains",
    "Expressions",
    "RuleMessage",
    "TableMessage",
    "batch",
    "deleting",
    "kind_of",
    "making",
    "rule",
]

CGROUPV2: Final = 3
"""NFT_SOCKET_CGROUPV2 (include/uapi/linux/netfilter/nf_tables.h, Linux 5.13)."""

_KnownSocket = nft_rule_msg.nft_expr.nft_socket


class RuleMessage(nft_rule_msg):  # type: ignore[misc]  # pyroute2 has no types
    """pyroute2's message with what it lacks of the expression ``socket cgroupv2 level N``."""

    class nft_expr(nft_rule_msg.nft_expr):  # type: ignore[misc]  # noqa: N801  pyroute2 finds it by this name
        class nft_socket(nft_rule_msg.nft_expr.nft_socket):  # type: ignore[misc]  # noqa: N801  the same
            nla_map = (*_KnownSocket.nla_map, ("NFTA_SOCKET_LEVEL", "be32"))

            class socket_keys(nft_rule_msg.nft_expr.nft_socket.socket_keys):  # type: ignore[misc]  # noqa: N801  the same
                ops: Final = {**_KnownSocket.socket_keys.ops, CGROUPV2: "NFT_SOCKET_CGROUPV2"}


class TableMessage(nft_table_msg):  # type: ignore[misc]  # pyroute2 has no types
    """pyroute2's message with the user data as bytes: it takes all of them for one comment in UTF-8, which they need
    not be.
    """

    nla_map = tuple(
        (name, "cdata" if name == "NFTA_TABLE_USERDATA" else kind) for name, kind in nft_table_msg.nla_map
    )


Expressions = list[dict[str, Any]]
Chains = Mapping[str, Sequence[Expressions]]
"""The rules of each chain, in order. A chain is named after the hook that it has."""

# Hooks of the inet family (include/uapi/linux/netfilter.h), and where iptables' mangle table has its place.
_HOOKS: Final = {"output": 3, "input": 1}  # NF_INET_LOCAL_OUT, NF_INET_LOCAL_IN
_MANGLE: Final = -150
_ACCEPT: Final = 1
_BATCH_BEGIN: Final = 0x10  # NFNL_MSG_BATCH_BEGIN
_BATCH_END: Final = 0x11


def batch(messages: Iterable[Any]) -> list[Any]:
    """The messages as one transaction: the kernel does all of it or nothing."""
    return [_edge(_BATCH_BEGIN), *messages, _edge(_BATCH_END)]


def making(table: str, user_data: bytes, chains: Chains) -> Iterator[Any]:
    """What makes a table with its chains and rules, none of which may be there."""
    attributes: list[list[Any]] = [["NFTA_TABLE_NAME", table], ["NFTA_TABLE_USERDATA", user_data]]
    yield _message(TableMessage, NFT_MSG_NEWTABLE, attributes, NLM_F_CREATE | NLM_F_EXCL)
    for chain, rules in chains.items():
        yield _message(nft_chain_msg, NFT_MSG_NEWCHAIN, _chain(table, chain), NLM_F_CREATE | NLM_F_EXCL)
        for expressions in rules:
            yield rule(expressions, ["NFTA_RULE_TABLE", table], ["NFTA_RULE_CHAIN", chain])


def rule(expressions: Expressions, *where: list[Any]) -> Any:
    """What appends a rule."""
    attributes = [*where, ["NFTA_RULE_EXPRESSIONS", expressions]]
    return _message(RuleMessage, NFT_MSG_NEWRULE, attributes, NLM_F_CREATE | NLM_F_APPEND)


def deleting(table: str) -> Any:
    """What removes a table with all that is in it."""
    return _message(TableMessage, NFT_MSG_DELTABLE, [["NFTA_TABLE_NAME", table]])


def kind_of(number: int) -> int:
    """The type of a message of nftables, as its header has it."""
    return int(NFNL_SUBSYS_NFTABLES << 8 | number)


def _chain(table: str, chain: str) -> list[list[Any]]:
    hook = {"attrs": [["NFTA_HOOK_HOOKNUM", _HOOKS[chain]], ["NFTA_HOOK_PRIORITY", _MANGLE]]}
    return [
        ["NFTA_CHAIN_TABLE", table],
        ["NFTA_CHAIN_NAME", chain],
        ["NFTA_CHAIN_HOOK", hook],
        ["NFTA_CHAIN_TYPE", "filter"],
        ["NFTA_CHAIN_POLICY", _ACCEPT],
    ]


def _message(made_by: Any, number: int, attributes: list[list[Any]], flags: int = 0) -> Any:
    message = made_by()
    message["attrs"] = attributes
    message["nfgen_family"] = NFPROTO_INET
    message["header"]["type"] = kind_of(number)
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | flags
    return message


def _edge(number: int) -> Any:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"] = number
    message["header"]["flags"] = NLM_F_REQUEST
    return message
