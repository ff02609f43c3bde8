"""The rule model of cgroup v1's devices controller, which OCI keeps for the device programs of v2.

The model is the kernel's of v1 (security/device_cgroup.c) with the one difference that runc made: to take
permissions out of a wildcard rule is an error here, where v1 ignores the request and leaves the access open.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from swarmcg.resources.rows import nonsense
from swarmcg.resources.spec import Device

__all__ = ["STANDARD", "DeviceRules", "Kind", "Node", "complete", "model"]

Kind = Literal["b", "c"]

_MOST: Final = 2**32 - 1
_MOST_SHOWN: Final = 64
_FULL: Final = frozenset("rwm")


class Node(NamedTuple):
    """Device nodes by number; None stands for any."""

    kind: Kind
    major: int | None
    minor: int | None

    def covers(self, kind: str, major: int, minor: int) -> bool:
        """Whether the node with these numbers is meant."""
        return kind == self.kind and self.major in {None, major} and self.minor in {None, minor}

    def __str__(self) -> str:
        return f"{self.kind} {_shown(self.major)}:{_shown(self.minor)}"


STANDARD: Final[tuple[tuple[Node, frozenset[str]], ...]] = (
    (Node("c", None, None), frozenset("m")),
    (Node("b", None, None), frozenset("m")),
    (Node("c", 1, 3), _FULL),  # null
    (Node("c", 1, 5), _FULL),  # zero
    (Node("c", 1, 7), _FULL),  # full
    (Node("c", 1, 8), _FULL),  # random
    (Node("c", 1, 9), _FULL),  # urandom
    (Node("c", 5, 0), _FULL),  # tty
    (Node("c", 5, 2), _FULL),  # ptmx
    (Node("c", 136, None), _FULL),  # pts
)
"""What every process may expect, granted beside the rules."""


class DeviceRules(msgspec.Struct, frozen=True):
    """Who may use which device nodes.

    Access that ``exceptions`` name is the opposite of ``allow``; no two have the same node. ``standard`` is
    granted all the same, but for what ``withheld`` names: that was denied by number.
    """

    allow: bool
    exceptions: tuple[tuple[Node, frozenset[str]], ...] = ()
    standard: tuple[tuple[Node, frozenset[str]], ...] = ()
    withheld: tuple[tuple[Node, frozenset[str]], ...] = ()

    def allows(self, kind: Kind, major: int, minor: int, access: str) -> bool:
        """Whether every letter of ``access`` (of ``rwm``) is allowed; each may be by a rule of its own."""
        named = _named(self.exceptions, kind, major, minor)
        granted = _named(self.standard, kind, major, minor) - _named(self.withheld, kind, major, minor)
        return set(access) <= ((_FULL - named) if self.allow else named) | granted

    @property
    def all_allowed(self) -> bool:
        """Whether the rules forbid nothing."""
        return self.allow and not self.exceptions

    def __str__(self) -> str:
        default, but = ("allow all", "except") if self.allow else ("deny all", "but")
        listed = [f"{node} {_letters(access)}" for node, access in self.exceptions[:_MOST_SHOWN]]
        if more := len(self.exceptions) - len(listed):
            listed.append(f"{more} more")
        text = f"{default} {but} {', '.join(listed)}" if listed else default
        return f"{text}; standard devices allowed unless denied by number" if self.standard else text


def model(rules: Sequence[Device]) -> DeviceRules:
    """The rules taken in order, from deny all; without the standard devices.

    A rule of type ``a`` (or without type) resets everything. Raises ResourcesError for a rule that makes no
    sense or would punch a hole into a wildcard rule.
    """
    allow, exceptions = False, dict[Node, frozenset[str]]()
    for i, rule in enumerate(rules):
        field = f"devices[{i}]"
        access = _access(field, rule)
        major, minor = _number(f"{field}.major", rule.major), _number(f"{field}.minor", rule.minor)
        if rule.type is None or rule.type == "a":
            allow, exceptions = rule.allow, {}
            continue
        node = Node(rule.type, major, minor)
        if rule.allow == allow:
            _remove(field, node, access, exceptions)
        else:
            exceptions[node] = exceptions.get(node, frozenset()) | access
    return DeviceRules(allow, tuple(exceptions.items()))


def complete(rules: Sequence[Device]) -> DeviceRules:
    """:func:`model`, and the standard devices except for those that a rule denies by number."""
    withheld = tuple(
        (node, frozenset(rule.access or ""))
        for rule in rules
        if not rule.allow and (node := _numbered(rule)) is not None
    )
    return msgspec.structs.replace(model(rules), standard=STANDARD, withheld=withheld)


def _remove(field: str, node: Node, access: frozenset[str], exceptions: dict[Node, frozenset[str]]) -> None:
    """Takes permissions out of the exception for exactly this node; v1 knows no other way to do it."""
    kind, major, minor = node
    for wider in {Node(kind, None, minor), Node(kind, major, None), Node(kind, None, None)} - {node}:
        if exceptions.get(wider, frozenset()) & access:
            nonsense(
                field,
                f"{node} {_letters(access)}",
                f"it would punch a hole into the wildcard rule {wider} {_letters(exceptions[wider])}",
                "Name the devices in the earlier rule one by one.",
            )
    left = exceptions.pop(node, frozenset()) - access
    if left:
        exceptions[node] = left


def _numbered(rule: Device) -> Node | None:
    """The node that the rule names by number. A major number alone will do: pts have no other."""
    if rule.type is None or rule.type == "a" or rule.major in {None, -1}:
        return None
    return Node(rule.type, rule.major, None if rule.minor == -1 else rule.minor)


def _access(field: str, rule: Device) -> frozenset[str]:
    access = frozenset(rule.access or "")
    if not access or access - _FULL:
        nonsense(
            f"{field}.access",
            rule.access,
            "access is one or more of r (read), w (write) and m (mknod)",
            "Give it, as in rwm.",
        )
    return access


def _number(field: str, number: int | None) -> int | None:
    if number is None or number == -1:  # -1 is how Docker and Podman spell a wildcard
        return None
    if not 0 <= number <= _MOST:
        nonsense(field, number, f"it goes from 0 to {_MOST}", "Leave it out for any number.")
    return number


def _named(rules: Sequence[tuple[Node, frozenset[str]]], kind: str, major: int, minor: int) -> frozenset[str]:
    return frozenset[str]().union(*(access for node, access in rules if node.covers(kind, major, minor)))


def _shown(number: int | None) -> str:
    return "*" if number is None else str(number)


def _letters(access: frozenset[str]) -> str:
    return "".join(letter for letter in "rwm" if letter in access)
