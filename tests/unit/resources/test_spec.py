"""OCI JSON into typed values, and one clear error for everything else."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from swarmcg.errors import ResourcesError
from swarmcg.resources import BlockIO, LinuxResources, Memory, ThrottleDevice, spec

WHOLE = {
    "devices": [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
    ],
    "memory": {
        "limit": 1,
        "reservation": 2,
        "swap": 3,
        "kernel": 4,
        "kernelTCP": 5,
        "swappiness": 6,
        "disableOOMKiller": False,
        "useHierarchy": True,
        "checkBeforeUpdate": True,
    },
    "cpu": {
        "shares": 1,
        "quota": -1,
        "burst": 2,
        "period": 3,
        "realtimeRuntime": 4,
        "realtimePeriod": 5,
        "cpus": "0",
        "mems": "0",
        "idle": 0,
    },
    "pids": {"limit": 7},
    "blockIO": {
        "weight": 10,
        "leafWeight": 11,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 11}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
        "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 8}],
    "network": {"classID": 9, "priorities": [{"name": "eth0", "priority": 10}]},
    "rdma": {"mlx5_0": {"hcaHandles": 11, "hcaObjects": 12}},
    "unified": {"memory.high": "13"},
}


def test_every_field_has_the_name_of_the_specification() -> None:
    assert json.loads(LinuxResources.from_json(json.dumps(WHOLE)).to_json()) == WHOLE


def test_the_example_leaves_no_field_out() -> None:
    read = LinuxResources.from_json(json.dumps(WHOLE))
    for part in (read, read.memory, read.cpu, read.block_io, read.network):
        assert part is not None
        assert [name for name in part.__struct_fields__ if getattr(part, name) is None] == []


@pytest.mark.parametrize(
    ("text", "resources"),
    [
        ("{}", LinuxResources()),
        (b'{"memory":{"limit":0}}', LinuxResources(memory=Memory(limit=0))),
        ('{"memory":{"limit":null}}', LinuxResources(memory=Memory())),
        ('{"ociVersion":"1.2.0"}', LinuxResources()),
        ('{"ociVersion":"1.2.0","linux":null}', LinuxResources()),
        ('{"linux":{}}', LinuxResources()),
        ('{"linux":{"resources":{"memory":{"limit":5}}}}', LinuxResources(memory=Memory(limit=5))),
        (
            '{"ociVersion":3,"process":{"a":1,"a":2},"linux":{"seccomp":[1],"resources":{"unified":{}}}}',
            LinuxResources(unified={}),
        ),
    ],
)
def test_a_bare_object_or_a_whole_config(text: str | bytes, resources: LinuxResources) -> None:
    assert LinuxResources.from_json(text) == resources


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", None),
        ("{", None),
        ("[]", None),
        ("null", None),
        ('"memory"', None),
        (b"\xff\xfe", None),
        ("[" * 100_000, None),
        ('{"a":' * 100_000, None),
        ("1" * 5000, None),
        ("NaN", None),
        ('{"memory":{"limit":NaN}}', "memory.limit"),
        ('{"memory":{"limit":1e400}}', "memory.limit"),
        ('{"memory":{"limit":1.5}}', "memory.limit"),
        ('{"memory":{"limit":"1"}}', "memory.limit"),
        ('{"memory":{"limit":true}}', "memory.limit"),
        ('{"memory":{"limit":9223372036854775808}}', "memory.limit"),
        ('{"memory":{"limit":-9223372036854775809}}', "memory.limit"),
        ('{"memory":{"useHierarchy":1}}', "memory.useHierarchy"),
        ('{"memory":[]}', "memory"),
        ('{"memory":{"Limit":1}}', "memory.Limit"),
        ('{"memory":{"limit":1,"limit":2}}', "memory.limit"),
        ('{"memory":{},"memory":{}}', "memory"),
        ('{"cpu":{"shares":-1}}', "cpu.shares"),
        ('{"cpu":{"shares":18446744073709551616}}', "cpu.shares"),
        ('{"cpu":{"cpus":3}}', "cpu.cpus"),
        ('{"intelRdt":{}}', "intelRdt"),
        ('{"blockIO":{"weight":65536}}', "blockIO.weight"),
        (
            '{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":-5}]}}',
            "blockIO.throttleReadBpsDevice[0].rate",
        ),
        (
            '{"blockIO":{"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":0}]}}',
            "blockIO.throttleReadIOPSDevice[1].rate",
        ),
        ('{"devices":[{"access":"r"}]}', "devices[0].allow"),
        ('{"devices":[{"allow":true,"type":"x"}]}', "devices[0].type"),
        ('{"devices":{}}', "devices"),
        ('{"network":{"classID":4294967296}}', "network.classID"),
        ('{"rdma":{"good":{},"bad":{"hcaHandles":-1}}}', "rdma.bad.hcaHandles"),
        ('{"rdma":{"bad":{"handles":1}}}', "rdma.bad.handles"),
        ('{"unified":{"memory.high":"1","memory.max":2}}', "unified.memory.max"),
        ('{"unified":{"memory.max":"\\ud800"}}', "unified.memory.max"),
        ('{"unified":{"\\ud800":"1"}}', "unified"),
        ('{"unified":[]}', "unified"),
        ('{"ociVersion":"1.2.0","linux":[]}', "linux"),
        ('{"linux":{"resources":7}}', "linux.resources"),
        ('{"linux":{"resources":{"pids":{"limit":true}}}}', "pids.limit"),
    ],
)
def test_what_is_no_resources_is_one_clear_error(text: str | bytes, path: str | None) -> None:
    with pytest.raises(ResourcesError) as caught:
        LinuxResources.from_json(text)
    assert caught.value.path == path
    assert caught.value.cause
    assert caught.value.remedy
    assert "`$" not in str(caught.value)
    str(caught.value).encode()


def test_the_error_carries_the_value() -> None:
    with pytest.raises(ResourcesError) as caught:
        LinuxResources.from_json('{"memory":{"limit":"64M"}}')
    assert caught.value.value == "64M"


def test_what_is_no_text_is_a_clear_error() -> None:
    with pytest.raises(ResourcesError, match="no JSON text"):
        LinuxResources.from_json({"memory": {}})  # type: ignore[arg-type]


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("resources", "path"),
    [
        (LinuxResources(memory=Memory(limit="1")), "memory.limit"),  # type: ignore[arg-type]
        (LinuxResources(memory=Memory(limit=2**63)), "memory.limit"),
        (LinuxResources(memory=3), "memory"),  # type: ignore[arg-type]
        (LinuxResources(memory=spec.Cpu(shares=1)), "memory.shares"),  # type: ignore[arg-type]
        (LinuxResources(cpu=spec.Cpu(cpus=b"0-1")), "cpu.cpus"),  # type: ignore[arg-type]
        (LinuxResources(cpu=spec.Cpu(quota=float("nan"))), "cpu.quota"),  # type: ignore[arg-type]
        (LinuxResources(cpu=object()), None),  # type: ignore[arg-type]
        (LinuxResources(unified={1: "a"}), "unified"),  # type: ignore[dict-item]
        (LinuxResources(unified={"memory.max": "\ud800"}), "unified.memory.max"),
        (LinuxResources(devices=ENDLESS), None),  # type: ignore[arg-type]
        (
            LinuxResources(
                block_io=BlockIO(throttle_read_bps_device=(ThrottleDevice(major=8, minor=0, rate=-1),))
            ),
            "blockIO.throttleReadBpsDevice[0].rate",
        ),
    ],
)
def test_wrong_types_in_a_constructor_are_found_before_they_are_used(
    resources: LinuxResources, path: str | None
) -> None:
    with pytest.raises(ResourcesError) as caught:
        resources.checked()
    assert caught.value.path == path


def test_lists_in_a_constructor_are_as_good_as_tuples() -> None:
    device = ThrottleDevice(major=8, minor=0, rate=1)
    listed = LinuxResources(block_io=BlockIO(throttle_read_bps_device=[device]))  # type: ignore[arg-type]
    assert listed.checked() == LinuxResources(block_io=BlockIO(throttle_read_bps_device=(device,)))


@given(st.binary() | st.text())
def test_no_text_raises_anything_else(text: str | bytes) -> None:
    try:
        LinuxResources.from_json(text)
    except ResourcesError as e:
        assert str(e)  # noqa: PT017  most texts are refused, and few are not


names = st.sampled_from(
    sorted({*WHOLE, *(key for part in WHOLE.values() if isinstance(part, dict) for key in part)})
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(), inner)
)


@given(trees)
def test_no_json_raises_anything_else(tree: Any) -> None:
    try:
        LinuxResources.from_json(json.dumps(tree))
    except ResourcesError as e:
        assert str(e)  # noqa: PT017  most trees are refused, and few are not


@given(
    st.builds(
        LinuxResources, memory=st.none() | st.from_type(spec.Memory), cpu=st.none() | st.from_type(spec.Cpu)
    )
)
def test_json_and_back_changes_nothing(resources: LinuxResources) -> None:
    try:
        asked = resources.checked()
    except ResourcesError:
        return
    assert LinuxResources.from_json(asked.to_json()) == asked
    assert msgspec.json.decode(asked.to_json(), type=LinuxResources) == asked
