"""The rule model of devices, by table and against a naive one that keeps every node by itself."""

from itertools import product
from typing import Any, Final

import pytest
from hypothesis import given, strategies as st

from swarmcg.errors import ResourcesError
from swarmcg.resources import Device, device_rules

ALLOW_ALL: Final = Device(allow=True, access="rwm")
DENY_ALL: Final = Device(allow=False, access="rwm")


def allow(kind: Any, major: int | None, minor: int | None, access: str = "rwm") -> Device:
    return Device(allow=True, type=kind, major=major, minor=minor, access=access)


def deny(kind: Any, major: int | None, minor: int | None, access: str = "rwm") -> Device:
    return Device(allow=False, type=kind, major=major, minor=minor, access=access)


@pytest.mark.parametrize(
    ("rules", "shown"),
    [
        ([], "deny all"),
        ([DENY_ALL], "deny all"),
        ([ALLOW_ALL], "allow all"),
        ([ALLOW_ALL, DENY_ALL], "deny all"),
        ([allow("c", 1, 3), DENY_ALL], "deny all"),
        ([allow("a", 8, 0, "r")], "allow all"),
        ([allow("c", 1, 3, "r"), allow("c", 1, 3, "w")], "deny all but c 1:3 rw"),
        ([allow("c", 1, None), allow("b", None, None, "m")], "deny all but c 1:* rwm, b *:* m"),
        ([allow("c", -1, -1, "m")], "deny all but c *:* m"),
        ([allow("c", 1, 3), deny("c", 1, 3)], "deny all"),
        ([allow("c", 1, 3), deny("c", 1, None)], "deny all but c 1:3 rwm"),
        ([allow("c", 1, None), deny("c", 1, None, "w")], "deny all but c 1:* rm"),
        ([allow("c", 1, None, "r"), deny("c", 1, 3, "w")], "deny all but c 1:* r"),
        ([allow("c", 1, 3, "rr")], "deny all but c 1:3 r"),
        ([ALLOW_ALL, deny("b", 8, 0)], "allow all except b 8:0 rwm"),
        ([ALLOW_ALL, deny("b", 8, 0), allow("b", 8, 0, "r")], "allow all except b 8:0 wm"),
        ([ALLOW_ALL, deny("b", 8, 0), allow("b", 8, 0)], "allow all"),
    ],
)
def test_rules_are_taken_in_order(rules: list[Device], shown: str) -> None:
    assert str(device_rules.model(rules)) == shown


@pytest.mark.parametrize(
    "rules",
    [
        [allow("c", 1, None), deny("c", 1, 3)],
        [allow("c", None, 3), deny("c", 1, 3)],
        [allow("c", None, None), deny("c", 1, 3)],
        [allow("c", None, None), deny("c", 1, None)],
        [ALLOW_ALL, deny("c", 1, None), allow("c", 1, 3)],
    ],
)
def test_no_hole_is_punched_into_a_wildcard_rule(rules: list[Device]) -> None:
    with pytest.raises(ResourcesError, match="punch a hole") as caught:
        device_rules.model(rules)
    assert caught.value.path == f"devices[{len(rules) - 1}]"


@pytest.mark.parametrize(
    ("rules", "asked", "allowed"),
    [
        ([allow("c", 1, 11, "r")], ("c", 1, 11, "rw"), False),
        ([allow("c", 1, 11, "r")], ("b", 1, 11, "r"), False),
        ([allow("c", 1, 11, "r"), allow("c", 1, None, "w")], ("c", 1, 11, "rw"), True),
        ([ALLOW_ALL, deny("c", 1, 11, "w")], ("c", 1, 11, "rw"), False),
        ([ALLOW_ALL, deny("c", 1, 11, "w")], ("c", 1, 11, "rm"), True),
        ([], ("c", 1, 3, "rw"), True),
        ([], ("c", 136, 7, "rw"), True),
        ([], ("c", 5, 2, "rwm"), True),
        ([], ("c", 5, 1, "r"), False),
        ([], ("b", 8, 0, "m"), True),
        ([], ("b", 8, 0, "r"), False),
        ([DENY_ALL], ("c", 1, 9, "r"), True),
        ([deny("c", None, None)], ("c", 1, 9, "r"), True),
        ([deny("c", 1, 9)], ("c", 1, 9, "r"), False),
        ([deny("c", 1, 9)], ("c", 1, 9, "m"), False),
        ([deny("c", 1, 9)], ("c", 1, 8, "rw"), True),
        ([deny("c", 1, 9)], ("c", 1, 8, "m"), True),
        ([deny("c", 1, 9, "w")], ("c", 1, 9, "r"), True),
        ([deny("c", 136, None)], ("c", 136, 0, "r"), False),
        ([deny("c", 1, 9), allow("c", 1, 9, "r")], ("c", 1, 9, "r"), True),
        ([ALLOW_ALL, deny("c", 1, 9)], ("c", 1, 9, "r"), False),
    ],
)
def test_access_with_the_standard_devices(rules: list[Device], asked: Any, *, allowed: bool) -> None:
    assert device_rules.complete(rules).allows(*asked) is allowed


def test_a_long_list_is_shown_in_part() -> None:
    shown = str(device_rules.model([allow("c", 10, minor) for minor in range(100)]))
    assert "c 10:63 rwm" in shown
    assert shown.endswith(", 36 more")


numbers = st.none() | st.sampled_from([0, 1])
rules_of_two = st.lists(
    st.builds(
        Device,
        allow=st.booleans(),
        type=st.sampled_from(["a", "b", "c", "c", "c"]),
        major=numbers,
        minor=numbers,
        access=st.sampled_from(["r", "w", "m", "rw", "rwm"]),
    ),
    max_size=7,
)


def naive(rules: list[Device], kind: str, major: int, minor: int, letter: str) -> bool | None:
    """Whether one letter is allowed for one node; None when the rules ask for a hole. Keeps a list, as v1 does."""
    default, listed = False, set[tuple[str, int | None, int | None, str]]()
    for rule in rules:
        if rule.type in {None, "a"}:
            default, listed = rule.allow, set()
            continue
        entries = {(str(rule.type), rule.major, rule.minor, one) for one in rule.access or ""}
        if rule.allow != default:
            listed |= entries
        elif any(_wider(one, other) for one in entries for other in listed):
            return None
        else:
            listed -= entries
    hit = any((kind, a, b, letter) in listed for a, b in product((None, major), (None, minor)))
    return hit is not default


def _wider(
    entry: tuple[str, int | None, int | None, str], other: tuple[str, int | None, int | None, str]
) -> bool:
    """Whether the other one is a wildcard that has the entry inside it."""
    (kind, major, minor, letter), (its_kind, its_major, its_minor, its_letter) = entry, other
    covered = (
        (kind, letter) == (its_kind, its_letter) and its_major in {None, major} and its_minor in {None, minor}
    )
    return covered and entry != other


@given(rules_of_two)
def test_the_model_decides_as_a_list_of_single_permissions(rules: list[Device]) -> None:
    nodes = list(product("bc", (0, 1, 2), (0, 1, 2), "rwm"))
    expected = [naive(rules, *node) for node in nodes]
    if None in expected:
        with pytest.raises(ResourcesError):
            device_rules.model(rules)
        return
    made = device_rules.model(rules)
    assert [made.allows(kind, *rest) for kind, *rest in nodes] == expected  # type: ignore[arg-type]
