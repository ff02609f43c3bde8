"""Network limits on the command line. Docker has none of these flags; classes are written as tc(8) does it."""

import argparse
import re
from typing import Any, Final

from swarmcg.bot import Bandwidth
from swarmcg.cli import sizes
from swarmcg.cli.parser import UsageError
from swarmcg.errors import ConfigError
from swarmcg.resources import InterfacePriority

__all__ = ["add_bandwidth", "bandwidth", "class_id", "priority"]

_CLASS: Final = re.compile(r"([0-9a-f]{1,4}):([0-9a-f]{1,4})", re.ASCII | re.IGNORECASE)
_NUMBER: Final = re.compile(r"0x([0-9a-f]{1,8})", re.ASCII | re.IGNORECASE)


def add_bandwidth(group: Any) -> None:
    """The flags of the bandwidth, which is no part of OCI's resources."""
    group.add_argument(
        "--egress-bps", metavar="SIZE", help="bytes a second sent; takes the interface's root qdisc"
    )
    group.add_argument(
        "--ingress-bps", metavar="SIZE", help="bytes a second received; what is more is dropped"
    )
    group.add_argument(
        "--network-interface",
        metavar="IF",
        help="where bandwidth is limited (default: the interface of the default route)",
    )


def bandwidth(asked: argparse.Namespace) -> Bandwidth | None:
    """What the flags ask for, None when they ask for nothing. Raises UsageError."""
    rates = {"egress_bps": asked.egress_bps, "ingress_bps": asked.ingress_bps}
    given = {name: text for name, text in rates.items() if text is not None}
    if not given and asked.network_interface is None:
        return None
    if not given:
        raise UsageError(
            "--network-interface without a rate limits nothing",
            value=asked.network_interface,
            remedy="Give --egress-bps, --ingress-bps or both as well, or leave it out.",
        )
    read = {name: sizes.rate(f"--{name.replace('_', '-')}", text) for name, text in given.items()}
    try:
        return Bandwidth(interface=asked.network_interface, **read)
    except ConfigError as e:
        field = (e.path or "").removeprefix("bandwidth.").replace("_", "-")
        flag = "--network-interface" if field == "interface" else f"--{field}"
        raise UsageError(
            f"{flag} cannot be used",
            value=vars(asked)[flag.removeprefix("--").replace("-", "_")],
            cause=e.cause or e.what,
            remedy=e.remedy,
        ) from None


def class_id(flag: str, text: str) -> int:
    """``MAJ:MIN``, both hexadecimal, or the whole number after ``0x``."""
    if found := _CLASS.fullmatch(text):
        return int(found[1], 16) << 16 | int(found[2], 16)
    if found := _NUMBER.fullmatch(text):
        return int(found[1], 16)
    raise UsageError(
        f"{flag} cannot be used",
        value=text,
        cause="it is no class: two hexadecimal numbers of 16 bits, as tc shows them",
        remedy="Give it as in 1:10, or as in 0x00010010.",
    )


def priority(flag: str, text: str) -> InterfacePriority:
    """``IF:N``."""
    name, colon, number = text.rpartition(":")
    if not colon or not name:
        raise UsageError(
            f"{flag} cannot be used",
            value=text,
            cause="it names no interface and priority",
            remedy="Give both, as in eth0:5.",
        )
    return InterfacePriority(name=name, priority=sizes.whole(flag, number))
