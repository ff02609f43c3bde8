"""Numbers on which runc, crun and containerd agree."""

import json
from pathlib import Path
from typing import Any, Final, cast

import pytest

from swarmcg.errors import ResourcesError
from swarmcg.resources import Device, Disk, device_rules
from swarmcg.resources.cpu import linear_weight, quadratic_weight
from swarmcg.resources.hugetlb import page_size
from tests.unit.resources.hosts import values

VECTORS: Final[dict[str, list[Any]]] = json.loads(Path(__file__).with_name("vectors.json").read_text())
BFQ: Final = {"8:0": Disk(name="sda", whole="8:0", scheduler="bfq")}
COST: Final = {"8:0": Disk(name="sda", whole="8:0", iocost=True)}


def cases(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", VECTORS[name], ids=json.dumps)


def test_every_vector_is_tested() -> None:
    text = Path(__file__).read_text()
    assert [name for name in VECTORS if f'"{name}"' not in text] == []


@cases("cpu.shares")
def test_shares(case: dict[str, Any]) -> None:
    written = values({"cpu": {"shares": case["shares"]}}).get("cpu.weight")
    assert written == (None if case["cpu.weight"] is None else str(case["cpu.weight"]))
    if written is not None:
        assert linear_weight(case["shares"]) == case["cpu.weight (linear)"]
        assert quadratic_weight(case["shares"]) == case["cpu.weight"]


@cases("cpu.quota_period")
def test_quota_and_period(case: dict[str, Any]) -> None:
    assert (
        values({"cpu": {"quota": case["quota"], "period": case["period"]}}).get("cpu.max") == case["cpu.max"]
    )


@pytest.mark.parametrize("absent", [0, None])
@cases("memory.swap (0 = absent)")
def test_swap(case: dict[str, Any], absent: int | None) -> None:
    asked = {"memory": {"limit": case["limit"] or absent, "swap": case["swap"] or absent}}
    expected = case["memory.swap.max"]
    if expected is not None and expected.startswith("ERROR"):
        with pytest.raises(ResourcesError) as caught:
            values(asked)
        assert caught.value.path == "memory.swap"
    else:
        assert values(asked).get("memory.swap.max") == expected


@cases("memory.swap sizes")
def test_swap_sizes(case: dict[str, Any]) -> None:
    asked = {"memory": {"limit": case["limit"], "swap": case["swap"]}}
    assert values(asked)["memory.swap.max"] == case["memory.swap.max"]


@pytest.mark.parametrize(("file", "disks"), [("io.bfq.weight", BFQ), ("io.weight", COST)])
@cases("blockIO.weight")
def test_weight(case: dict[str, Any], file: str, disks: dict[str, Disk]) -> None:
    expected = {} if case[file] is None else {file: str(case[file])}
    assert values({"blockIO": {"weight": case["weight"]}}, disks=disks) == expected


@cases("pids.limit")
def test_pids(case: dict[str, Any]) -> None:
    assert values({"pids": {"limit": case["limit"]}}).get("pids.max") == case["pids.max"]


@cases("hugetlb.names")
def test_huge_page_sizes(case: list[str]) -> None:
    assert page_size(case[0]) == case[1]


@cases("devices.rules")
def test_device_rules(case: dict[str, Any]) -> None:
    rules = [rule_of(text) for text in case["rules"]]
    if case["result"] == "ERROR punch hole":
        with pytest.raises(ResourcesError, match="punch a hole"):
            device_rules.model(rules)
    else:
        assert str(device_rules.model(rules)) == SHOWN[case["result"]]


SHOWN: Final = {
    "deny all": "deny all",
    "allow all except b 8:0": "allow all except b 8:0 rwm",
    "c 1:3 rm": "deny all but c 1:3 rm",
}


def rule_of(text: str) -> Device:
    verb, kind, *rest = text.split()
    major, minor = rest[0].split(":") if rest else ("*", "*")
    return Device(
        allow=verb == "allow",
        type=cast("Any", kind),
        major=None if major == "*" else int(major),
        minor=None if minor == "*" else int(minor),
        access=rest[1] if rest else "rwm",
    )


@cases("devices.access")
def test_device_access(case: dict[str, Any]) -> None:
    rules = device_rules.model([rule_of("allow " + case["rule"])])
    assert rules.allows("c", 1, 11, case["open"]) is case["allowed"]


@cases("unified.override")
def test_unified_overrides(case: dict[str, Any]) -> None:
    typed: dict[str, Any] = {"unified": case["unified"]}
    for field, value in case["typed"].items():
        part, name = field.split(".")
        typed.setdefault(part, {})[name] = value
    assert values(typed) == case["result"]
