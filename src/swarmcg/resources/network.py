"""``network`` of the OCI resources, and the bandwidth that OCI has no word for.

cgroup v2 has no network controller: nftables tells packets by the cgroup of their socket, and gives them a
priority, which HTB takes for the class where it is one (htb_classify in net/sched/sch_htb.c). A packet has
one priority, so two things that need it cannot both be in force.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final

import msgspec

from swarmcg.bot import Bandwidth, Row, is_interface_name
from swarmcg.resources.abilities import Abilities, Lack
from swarmcg.resources.rows import impossible, nonsense, satisfied
from swarmcg.resources.spec import InterfacePriority, LinuxResources, Network, Uint32

__all__ = [
    "EGRESS",
    "INGRESS",
    "Marking",
    "NetworkPlan",
    "Rate",
    "changed",
    "class_name",
    "limits_packets",
    "plan",
    "rules",
]

_CLASS: Final = "network.classID"
_PRIORITIES: Final = "network.priorities"
EGRESS: Final = "bandwidth.egress_bps"
INGRESS: Final = "bandwidth.ingress_bps"


_MOST: Final = 1024
"""More markings with their limits are not recorded with a slice: each takes more than 64 bytes, and its attribute has
64 KiB (XATTR_SIZE_MAX of include/uapi/linux/limits.h).
"""
_Interface = Annotated[str, msgspec.Meta(pattern=r"^(?!\.{1,2}\Z)[^/:\s\0\ud800-\udfff]{1,15}\Z")]
"""See :func:`is_interface_name`."""
_BytesASecond = Annotated[int, msgspec.Meta(ge=1024, lt=1 << 32)]
"""See :class:`Bandwidth`."""
_Field = Annotated[str, msgspec.Meta(pattern=r"^(network|bandwidth)\.[A-Za-z_]{1,16}(\[[0-9]{1,4}\])?\Z")]
_Value = Annotated[str, msgspec.Meta(pattern=r"^[^\0\ud800-\udfff]{1,32}\Z")]


class Marking(msgspec.Struct, frozen=True):
    """The priority of the packets that leave through an interface; None stands for every interface."""

    priority: Uint32
    interface: _Interface | None = None


class Rate(msgspec.Struct, frozen=True):
    """Bytes a second through one interface."""

    interface: _Interface
    bytes_a_second: _BytesASecond


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to happen to the packets of one slice, all of it enforceable as far as the plan can know.

    ``limits`` are the fields that are in force then, with their values, for the exit report. The bounds are for one
    that is read back from a slice, whose bot may have written it: see :mod:`swarmcg.cgroup.recorded`.
    """

    markings: Annotated[tuple[Marking, ...], msgspec.Meta(max_length=_MOST)] = ()
    egress: Rate | None = None
    ingress: Rate | None = None
    limits: Annotated[Mapping[_Field, _Value], msgspec.Meta(max_length=_MOST)] = {}


def limits_packets(resources: LinuxResources | None, bandwidth: Bandwidth | None) -> bool:
    """Whether anything is wanted of the packets, so that it is worth a look what this host can do."""
    network = (resources.network if resources is not None else None) or Network()
    return bool(network.class_id or network.priorities or bandwidth)


def plan(
    resources: LinuxResources, abilities: Abilities, *, bandwidth: Bandwidth | None = None
) -> Iterator[Row]:
    """The rows of ``network`` and of the bandwidth."""
    network = resources.network or Network()
    if network.class_id == 0:
        yield satisfied(_CLASS, None, "0 is no class, and packets have none")
    elif network.class_id is not None:
        yield _judged(
            Row(
                field=_CLASS,
                file=None,
                value=class_name(network.class_id),
                why="nftables gives the slice's packets this priority, which HTB takes for the class",
                enforceable=True,
            ),
            abilities.network.lack,
        )
    for i, entry in enumerate(network.priorities or ()):
        field = f"network.priorities[{i}]"
        if not is_interface_name(entry.name):
            nonsense(
                f"{field}.name", entry.name, "no network interface is named so", "Use a name from `ip link`."
            )
        yield _judged(_priority(field, entry), _priority_lack(entry, network, abilities))
    if bandwidth is not None:
        yield from _bandwidth(bandwidth, network, abilities)


def rules(
    network: Network | None, bandwidth: Bandwidth | None, abilities: Abilities, rows: Iterable[Row]
) -> NetworkPlan | None:
    """What of it is to be put in force, by the rows that :func:`plan` gave; None when nothing is."""
    limits = {
        row.field: row.value for row in rows if row.enforceable and row.value is not None and _ours(row)
    }
    if not limits:
        return None
    egress, ingress = (bandwidth.egress_bps, bandwidth.ingress_bps) if bandwidth else (None, None)
    interface = _interface(bandwidth, abilities) if bandwidth else None
    return NetworkPlan(
        markings=tuple(_markings(network or Network(), limits)),
        egress=Rate(interface, egress) if interface and egress and EGRESS in limits else None,
        ingress=Rate(interface, ingress) if interface and ingress and INGRESS in limits else None,
        limits=limits,
    )


def _markings(network: Network, limits: Mapping[str, str]) -> Iterator[Marking]:
    if network.class_id and _CLASS in limits:
        yield Marking(network.class_id)
    for i, entry in enumerate(network.priorities or ()):
        if f"network.priorities[{i}]" in limits:
            yield Marking(entry.priority, entry.name)


def changed(
    before: NetworkPlan | None, network: Network, made: NetworkPlan | None, rows: Iterable[Row]
) -> NetworkPlan | None:
    """The rules of a slice after an update that asks for ``network``; ``made`` and ``rows`` are its plan.

    What is named takes the place of what was there, all priorities that of all; what cannot be put in force
    changes nothing. Raises ResourcesError when a packet would have to have two priorities.
    """
    old, new = before or NetworkPlan(), made or NetworkPlan()
    able = {row.field.partition("[")[0] for row in rows if row.enforceable}
    classed = network.class_id is not None and _CLASS in able
    listed = network.priorities is not None and (not network.priorities or _PRIORITIES in able)
    replaced = {_CLASS: classed, _PRIORITIES: listed}
    stays = (mark for mark in old.markings if not (listed if mark.interface else classed))
    kept = {f: v for f, v in old.limits.items() if not replaced.get(f.partition("[")[0], False)}
    after = NetworkPlan(
        markings=(*stays, *new.markings),
        egress=old.egress,
        ingress=old.ingress,
        limits={**kept, **new.limits},
    )
    _check_one_priority(after)
    return after if after.limits else None


def _check_one_priority(after: NetworkPlan) -> None:
    interfaces = {mark.interface for mark in after.markings}
    others = bool(interfaces - {None}) or after.egress is not None
    if None in interfaces and others:
        value = after.limits.get(_CLASS)
        nonsense(_CLASS, value, "a packet has one priority, and others are in force", "Remove those first.")
    if after.egress is not None and after.egress.interface in interfaces:
        why = f"a packet has one priority, and {EGRESS} takes it on {after.egress.interface}"
        nonsense(_PRIORITIES, after.egress.interface, why, "Leave this interface out.")


def class_name(class_id: int) -> str:
    """A class as tc(8) shows it, ``10:1`` for 0x00100001: two numbers of 16 bits, hexadecimal."""
    return f"{class_id >> 16:x}:{class_id & 0xFFFF:x}"


def _ours(row: Row) -> bool:
    return row.field.startswith(("network.", "bandwidth."))


def _judged(row: Row, lack: Lack | None) -> Row:
    if lack is None:
        return row
    return impossible(row.field, lack.why, lack.remedy, value=row.value)


def _priority(field: str, entry: InterfacePriority) -> Row:
    return Row(
        field=field,
        file=None,
        value=f"{entry.name} {entry.priority}",
        why="nftables gives the slice's packets this priority on their way out through the interface",
        enforceable=True,
    )


def _priority_lack(entry: InterfacePriority, network: Network, abilities: Abilities) -> Lack | None:
    if network.class_id:
        return Lack("a packet has one priority, and network.classID takes it", "Ask for one of the two.")
    return abilities.network.lack or _no_link(entry.name, abilities)


def _bandwidth(bandwidth: Bandwidth, network: Network, abilities: Abilities) -> Iterator[Row]:
    interface = _interface(bandwidth, abilities)
    lack = abilities.network.lack or _no_link(interface, abilities)
    if bandwidth.egress_bps is not None:
        row = Row(
            field=EGRESS,
            file=None,
            value=f"{interface or '?'} {bandwidth.egress_bps}",
            why="what is sent waits in an HTB class of its own, below a root qdisc of ours",
            enforceable=True,
        )
        yield _judged(row, lack or _egress_lack(interface, network, abilities))
    if bandwidth.ingress_bps is not None:
        row = Row(
            field=INGRESS,
            file=None,
            value=f"{interface or '?'} {bandwidth.ingress_bps}",
            why="a program of the slice drops what is received faster, and nftables does over longer times",
            enforceable=True,
        )
        yield _judged(row, lack or abilities.network.ingress)


def _egress_lack(interface: str | None, network: Network, abilities: Abilities) -> Lack | None:
    if network.class_id or any(entry.name == interface for entry in network.priorities or ()):
        taker = _CLASS if network.class_id else "network.priorities"
        return Lack(f"a packet has one priority, and {taker} takes it", "Ask for one of the two.")
    taken = abilities.network.links.get(interface or "")
    if taken is None:
        return None
    return Lack(
        f"another program has given {interface} the root qdisc {taken}",
        f"Have that program shape the traffic, by a class of its own (network.classID), or: "
        f"tc qdisc del dev {interface} root",
    )


def _interface(bandwidth: Bandwidth, abilities: Abilities) -> str | None:
    return bandwidth.interface or abilities.network.default


def _no_link(interface: str | None, abilities: Abilities) -> Lack | None:
    if interface is None:
        return Lack(
            "no interface is named, and there is no default route to other hosts, or more than one interface has one",
            "Name it: --network-interface, bandwidth.interface.",
        )
    if interface in abilities.network.links:
        return None
    there = ", ".join(sorted(abilities.network.links)[:16])
    return Lack(f"there is no network interface {interface}", f"Use one of these: {there}.")
