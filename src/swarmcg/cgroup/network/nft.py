"""Tables of nftables, one a slice: made, read back, listed and removed."""

import asyncio
import errno
import secrets
import socket
import sys
from collections.abc import Iterable
from typing import Any, Final, Self

from pyroute2.netlink import NETLINK_NETFILTER
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFPROTO_INET,
    NFT_MSG_GETRULE,
    NFT_MSG_GETTABLE,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
    NFTSocket,
)

from swarmcg.cgroup.network.messages import (
    Expressions,
    RuleMessage,
    TableMessage,
    batch,
    deleting,
    kind_of,
    making,
    rule,
)
from swarmcg.cgroup.network.place import Label
from swarmcg.cgroup.network.program import program, sample
from swarmcg.errors import NetworkError
from swarmcg.resources import Lack, NetworkPlan

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Tables", "lack"]


_ANSWER_S: Final = 5.0


class Tables:
    """The tables of ours in this network namespace. A context manager; for one thread."""

    def __init__(self) -> None:
        _ask_for_netfilter()
        self._socket: Final = NFTSocket(nfgen_family=NFPROTO_INET)
        policy = {kind_of(NFT_MSG_NEWRULE): RuleMessage, kind_of(NFT_MSG_NEWTABLE): TableMessage}
        self._socket.register_policy(policy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def labels(self) -> list[Label]:
        """Every table that has a name as ours have. Raises NetlinkError: EPERM, EINVAL without nftables."""
        found = self._socket.request_get(TableMessage(), NFT_MSG_GETTABLE)
        read = (Label.read(m.get_attr("NFTA_TABLE_NAME"), m.get_attr("NFTA_TABLE_USERDATA")) for m in found)
        return [label for label in read if label is not None]

    def put(self, label: Label, rules: NetworkPlan) -> None:
        """Makes the table, in place of one of this name, and reads it back. Raises NetworkError when it reads
        back as something else; it is removed then.
        """
        chains = program(label, rules)
        there = any(known.name == label.name for known in self.labels())
        self.commit(
            [*([deleting(label.name)] if there else []), *making(label.name, label.user_data, chains)]
        )
        asked = [(chain, _said(expressions)) for chain, listed in chains.items() for expressions in listed]
        shown = self._rules(label.name)
        if not _same(asked, shown):
            self.delete(label.name)
            raise NetworkError(
                "The packet rules were taken differently by the kernel",
                path=f"nftables table inet {label.name}",
                value=repr(asked),
                cause=f"they read back as {shown!r}",
                remedy="Ask for a limit that this kernel can hold.",
            )

    def delete(self, name: str) -> None:
        """Removes the table with all that is in it, if there is one."""
        try:
            self.commit([deleting(name)])
        except NetlinkError as e:
            if e.code != errno.ENOENT:
                raise

    def _rules(self, table: str) -> list[tuple[str, "_Said"]]:
        request = RuleMessage()
        request["attrs"] = [["NFTA_RULE_TABLE", table]]
        return [
            (message.get_attr("NFTA_RULE_CHAIN"), _facts_of(message))
            for message in self._socket.request_get(request, NFT_MSG_GETRULE)
        ]

    def commit(self, messages: Iterable[Any]) -> None:
        """Does all of it or nothing. Raises NetlinkError with the first refusal, TimeoutError without an answer.

        Who may not do this at all gets no answer to the messages inside of a transaction (nfnetlink_rcv,
        Linux 6.1), so that is asked first, in :meth:`labels`; the bound is for what nobody thought of.
        """
        answers = self._answers(batch(messages))
        self._socket.asyncore.event_loop.run_until_complete(asyncio.wait_for(answers, _ANSWER_S))

    async def _answers(self, messages: list[Any]) -> None:
        async for _ in self._socket.asyncore.nlm_request_batch(messages):
            pass


def _ask_for_netfilter() -> None:
    """Raises OSError where the kernel has no netlink for netfilter. Asked first, since pyroute2 0.9.7 makes its event
    loop before its socket and leaves it open when that fails, of which Python may complain on stderr at any time.
    """
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER).close()


def lack() -> Lack | None:
    """Why this process cannot tell packets by their cgroup; None when it can.

    Makes a table and, in the same transaction, what must fail: a second one of the same name. When nothing
    else fails before that, all would have been accepted, and the kernel takes it back.
    """
    wanted = list(making(f"swarmcg-probe-{secrets.token_hex(8)}", b"", sample()))
    try:
        with Tables() as tables:
            tables.labels()
            tables.commit([*wanted, wanted[0]])
    except (NetlinkError, OSError) as e:
        number = e.code if isinstance(e, NetlinkError) else e.errno
        return None if number == errno.EEXIST else _LACKS.get(number or 0, _NO_NFTABLES)
    return _NO_NFTABLES


_NO_NFTABLES: Final = Lack(
    "the kernel has no nftables, or cannot match sockets or limit rates with them",
    "modprobe -a nf_tables nft_socket nft_limit, or use a kernel with CONFIG_NF_TABLES_INET, "
    "CONFIG_NFT_SOCKET and CONFIG_NFT_LIMIT.",
)
_LACKS: Final = {
    errno.EPERM: Lack("this user may not change the packet filter", "Run as root (CAP_NET_ADMIN)."),
    errno.EOPNOTSUPP: Lack(
        "the kernel cannot tell packets by their cgroup, or has no tables of the family inet",
        "Use Linux 5.13 or later with CONFIG_NF_TABLES_INET, CONFIG_NFT_SOCKET and CONFIG_SOCK_CGROUP_DATA.",
    ),
}


_Said = list[tuple[str, dict[str, Any]]]
"""Each expression of a rule with its attributes, as pyroute2 decodes them."""


def _said(expressions: Expressions) -> _Said:
    """How the expressions would be read back, had the kernel changed nothing: they go through both codecs."""
    message = rule(expressions)
    message.encode()
    again = RuleMessage(bytes(message.data))
    again.decode()
    return _facts_of(again)


def _facts_of(message: Any) -> _Said:
    expressions = message.get_attr("NFTA_RULE_EXPRESSIONS")
    return [(e.get_attr("NFTA_EXPR_NAME"), _plain(e.get_attr("NFTA_EXPR_DATA"))) for e in expressions]


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and "attrs" in value:
        return {name: _plain(inner) for name, inner in value["attrs"]}
    return value


def _same(asked: list[tuple[str, _Said]], shown: list[tuple[str, _Said]]) -> bool:
    """Whether each rule reads back with every attribute that was written; a later kernel may show more."""
    if [(chain, [name for name, _ in said]) for chain, said in asked] != [
        (chain, [name for name, _ in said]) for chain, said in shown
    ]:
        return False
    return all(
        _covers(there, wanted)
        for (_, written), (_, read) in zip(asked, shown, strict=True)
        for (_, wanted), (_, there) in zip(written, read, strict=True)
    )


def _covers(there: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_covers(there.get(name), wanted[name]) for name in wanted)
    return bool(there == wanted)
