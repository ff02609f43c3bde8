"""Docker's limit flags, and what they say in OCI's words.

Docker's command line is the model: where OCI and docker differ, the flag means what it means there
(``-m`` alone also limits swap), and OCI JSON from ``--resources`` is taken literally.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from swarmcg.cli import devices, network, options, sizes
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.errors import ResourcesError
from swarmcg.resources import BlockIO, Cpu, LinuxResources, Memory, Network, Pids
from swarmcg.resources.toml import PERIOD

__all__ = ["add_limits", "changes", "resources", "told_by_flag"]

_Reader = Callable[[str, str], Any]


class _Flag(msgspec.Struct, frozen=True):
    """A flag that says one field of one part of the resources."""

    part: str
    field: str
    read: _Reader
    metavar: str
    help: str


_SCALARS: Final[Mapping[str, _Flag]] = {
    "--cpu-shares": _Flag("cpu", "shares", sizes.whole, "N", "weight against siblings, 2 to 262144"),
    "--cpu-period": _Flag(
        "cpu", "period", sizes.microseconds, "TIME", "period of the processor quota: microseconds, or 50ms"
    ),
    "--cpu-quota": _Flag(
        "cpu", "quota", sizes.quota, "TIME", "processor time a period; -1 or max: without limit"
    ),
    "--cpuset-cpus": _Flag("cpu", "cpus", lambda _, text: text, "LIST", "processors to run on, as in 0-3,7"),
    "--cpuset-mems": _Flag("cpu", "mems", lambda _, text: text, "LIST", "memory nodes to use, as in 0,1"),
    "--memory": _Flag(
        "memory", "limit", sizes.memory_or_unlimited, "SIZE", "memory limit, as in 512m or 25%%"
    ),
    "--memory-reservation": _Flag(
        "memory", "reservation", sizes.memory, "SIZE", "memory that is kept from reclaim"
    ),
    "--memory-swap": _Flag(
        "memory",
        "swap",
        sizes.memory_or_unlimited,
        "SIZE",
        "memory and swap together; -1 or max: without limit",
    ),
    "--memory-swappiness": _Flag(
        "memory", "swappiness", sizes.whole, "N", "0 to 100 (cgroup version 1 only; unenforceable)"
    ),
    "--blkio-weight": _Flag("block_io", "weight", sizes.whole, "N", "share of disk time, 10 to 1000"),
    "--pids-limit": _Flag(
        "pids", "limit", sizes.whole_or_unlimited, "N", "most tasks; 0, -1 or max: without limit"
    ),
    "--network-class": _Flag(
        "network", "class_id", network.class_id, "MAJ:MIN", "class of packets, as in tc"
    ),
}
_LISTS: Final[Mapping[str, _Flag]] = {
    "--blkio-weight-device": _Flag(
        "block_io", "weight_device", devices.weight, "DEV:N", "share of one disk's time"
    ),
    "--device-read-bps": _Flag(
        "block_io", "throttle_read_bps_device", devices.byte_rate, "DEV:SIZE", "bytes a second read"
    ),
    "--device-write-bps": _Flag(
        "block_io", "throttle_write_bps_device", devices.byte_rate, "DEV:SIZE", "bytes a second written"
    ),
    "--device-read-iops": _Flag(
        "block_io", "throttle_read_iops_device", devices.rate, "DEV:N", "reads a second"
    ),
    "--device-write-iops": _Flag(
        "block_io", "throttle_write_iops_device", devices.rate, "DEV:N", "writes a second"
    ),
    "--network-priority": _Flag(
        "network", "priorities", network.priority, "IF:N", "priority of packets sent through an interface"
    ),
}
_NODES: Final[Mapping[str, tuple[_Reader, str, str]]] = {
    "--device": (devices.node, "DEV[:PERM]", "a node, or all in a directory; others may not be used"),
    "--device-cgroup-rule": (devices.rule, "RULE", "a rule as in 'c 42:* rwm'"),
}
_UNSET_BY_ZERO: Final = {
    "--cpu-shares",
    "--cpu-period",
    "--cpu-quota",
    "--blkio-weight",
    "--memory",
    "--memory-reservation",
    "--memory-swap",
}
_PARTS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "cpu": Cpu,
    "memory": Memory,
    "block_io": BlockIO,
    "pids": Pids,
    "network": Network,
}


def add_limits(parser: Parser) -> None:
    """The flags that limit a slice."""
    group = parser.add_argument_group(
        "limits",
        "They mean what they mean in 'docker run', where it has them. DEV is a path; of a disk also MAJ:MIN.",
    )
    group.add_argument(
        "--cpus", dest="--cpus", metavar="N", help="processors to use, as in 1.5; max: without limit"
    )
    for name, flag in _SCALARS.items():
        names = ("-m", name) if name == "--memory" else (name,)
        group.add_argument(*names, dest=name, metavar=flag.metavar, help=flag.help)
    group.add_argument(
        "--oom-kill-disable", action="store_true", help="(cgroup version 1 only; unenforceable)"
    )
    for name, flag in _LISTS.items():
        group.add_argument(name, dest=name, metavar=flag.metavar, action="append", default=[], help=flag.help)
    for name, (_, metavar, text) in _NODES.items():
        group.add_argument(name, dest=name, metavar=metavar, action="append", default=[], help=text)
    network.add_bandwidth(group)
    group.add_argument(
        "--resources",
        metavar="FILE",
        help="OCI LinuxResources or a whole config.json, - for standard input, or FILE.toml with sizes as the "
        "flags take them; flags override its fields",
    )


def resources(asked: argparse.Namespace, base: LinuxResources) -> tuple[LinuxResources, frozenset[str]]:
    """What the flags ask for on top of ``base``, and the fields that they only imply, which are reported
    rather than refused where they cannot be enforced.

    Raises UsageError, or ResourcesError with the field.
    """
    parts = _parts(asked)
    lenient = _add_swap(parts, vars(asked), base)
    return _made(parts, asked, base, lenient), lenient


def changes(asked: argparse.Namespace, base: LinuxResources) -> LinuxResources:
    """What the flags ask for on top of ``base``, for a slice that runs already: nothing is implied.

    Raises UsageError, also for what cannot be changed while a bot runs, or ResourcesError with the field.
    """
    if network.bandwidth(asked) is not None:
        raise UsageError(
            "Bandwidth cannot be changed while the bot runs",
            cause="--egress-bps, --ingress-bps and --network-interface are for its start",
            remedy="Leave them out, or start the bot anew with them.",
        )
    return _made(_parts(asked), asked, base)


def _parts(asked: argparse.Namespace) -> "_Parts":
    given = vars(asked)
    parts = _scalars(given)
    _add_cpus(parts, given)
    _add_lists(parts, given)
    if given["oom_kill_disable"]:
        parts.setdefault("memory", {})["disable_oom_killer"] = True
    return parts


def _made(
    parts: "_Parts",
    asked: argparse.Namespace,
    base: LinuxResources,
    lenient: frozenset[str] = frozenset(),
) -> LinuxResources:
    given = vars(asked)
    made: dict[str, Any] = {
        name: msgspec.structs.replace(getattr(base, name) or _PARTS[name](), **fields)
        for name, fields in parts.items()
    }
    rules = tuple(
        rule for name, (read, _, _) in _NODES.items() for text in given[name] for rule in read(name, text)
    )
    if rules:
        made["devices"] = rules
    asked_for = msgspec.structs.replace(base, **made)
    with told_by_flag(asked, lenient):
        return asked_for.checked()


@contextlib.contextmanager
def told_by_flag(asked: argparse.Namespace, lenient: frozenset[str] = frozenset()) -> Iterator[None]:
    """Errors of fields that flags said are told of these flags, also what only the plan for a host finds; others
    of the file of ``--resources``.

    ``lenient`` is what :func:`resources` gave. Raises UsageError in place of ResourcesError; the rest is as it was.
    """
    try:
        yield
    except ResourcesError as e:
        file = None if asked.resources is None else options.of_file(e, asked.resources)
        raise _of_flag(e, vars(asked), lenient) or file or e from None


def _of_flag(error: ResourcesError, given: Mapping[str, Any], lenient: frozenset[str]) -> UsageError | None:
    """The error in the words of the flag that said the field; None when it was another's."""
    path, _, rest = (error.path or "").partition("[")
    entry = rest.partition("]")[0]
    for name, field in _fields(lenient):
        text = given[name]
        if text and field == path:
            if name in _LISTS and entry:
                text = text[int(entry)]
            return UsageError(
                f"{name} cannot be used",
                value=text if isinstance(text, str) else error.value,
                cause=error.cause or error.what,
                remedy=error.remedy,
            )
    return None


def _fields(lenient: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The flags, each with the fields that it says or implies."""
    for name, flag in {**_SCALARS, **_LISTS}.items():
        yield name, f"{_encoded(LinuxResources, flag.part)}.{_encoded(_PARTS[flag.part], flag.field)}"
    yield "--cpus", "cpu.quota"
    yield "--device-cgroup-rule", "devices"  # before nodes, whose numbers the host gave
    yield "--device", "devices"
    yield from (("--memory", field) for field in lenient)


def _encoded(part: type[msgspec.Struct], name: str) -> str:
    return next(field.encode_name for field in msgspec.structs.fields(part) if field.name == name)


_Parts = dict[str, dict[str, Any]]


def _scalars(given: Mapping[str, Any]) -> _Parts:
    parts: _Parts = {}
    for name, flag in _SCALARS.items():
        if given[name] is None:
            continue
        value = flag.read(name, given[name])
        if name == "--pids-limit" and value == 0:
            value = -1
        if value or name not in _UNSET_BY_ZERO:
            parts.setdefault(flag.part, {})[flag.field] = value
    return parts


def _add_cpus(parts: _Parts, given: Mapping[str, Any]) -> None:
    if given["--cpus"] is None:
        return
    for other in ("--cpu-quota", "--cpu-period"):
        if given[other] is not None:
            raise UsageError(
                f"--cpus and {other} contradict each other",
                value=given[other],
                cause="--cpus says both quota and period",
                remedy="Give one of them.",
            )
    quota = sizes.cpus("--cpus", given["--cpus"], PERIOD)
    if quota:
        parts.setdefault("cpu", {}).update(quota=quota, period=PERIOD)


def _add_lists(parts: _Parts, given: Mapping[str, Any]) -> None:
    for name, flag in _LISTS.items():
        if given[name]:
            parts.setdefault(flag.part, {})[flag.field] = tuple(flag.read(name, text) for text in given[name])


def _add_swap(parts: _Parts, given: Mapping[str, Any], base: LinuxResources) -> frozenset[str]:
    """Docker's rule: a memory limit alone allows as much swap again."""
    memory = parts.get("memory", {})
    before = base.memory or Memory()
    limit = memory.get("limit")
    if "swap" in memory and memory["swap"] != -1 and not (limit or before.limit):
        raise UsageError(
            "--memory-swap needs --memory",
            value=given["--memory-swap"],
            cause="it counts memory and swap together",
            remedy="Give -m as well.",
        )
    if limit is None or limit < 0 or "swap" in memory or before.swap is not None:
        return frozenset()
    memory["swap"] = 2 * limit
    return frozenset({"memory.swap"})
