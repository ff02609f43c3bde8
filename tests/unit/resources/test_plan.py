"""The plan as a whole: order, overriding, what the host lacks, and what holds for any resources."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from swarmcg.errors import ResourcesError
from swarmcg.resources import Abilities, Lack, LinuxResources, Marking, Memory, Networking, NetworkPlan, plan
from tests.unit.resources.hosts import ABLE, host, planned, row, values


def files(asked: dict[str, Any]) -> list[str]:
    return [step.file for step in planned(asked).steps]


def test_nothing_asked_is_nothing_done() -> None:
    made = planned({})
    assert (made.steps, made.rows, made.devices, made.network, made.controllers) == (
        (),
        (),
        None,
        None,
        frozenset(),
    )


def test_the_order_is_one_that_the_kernel_takes() -> None:
    asked = {
        "cpu": {"quota": 2000, "burst": 1000},
        "memory": {"limit": 5, "swap": 6},
        "unified": {"cpu.max": "3000"},
    }
    assert files(asked) == ["memory.swap.max", "cpu.max", "cpu.max.burst", "memory.max"]


def test_idle_comes_after_the_weight() -> None:
    assert files({"cpu": {"idle": 0}, "unified": {"cpu.weight": "7"}}) == ["cpu.weight", "cpu.idle"]


def test_unified_takes_the_place_of_a_field_that_says_so() -> None:
    made = planned({"memory": {"limit": 5}, "unified": {"memory.max": "7"}})
    assert [(step.field, step.value) for step in made.steps] == [("unified.memory.max", "7")]
    assert row(made, "memory.limit").value is None
    assert "overridden by unified.memory.max" in row(made, "memory.limit").why


def test_a_field_that_asks_for_nothing_is_not_called_overridden() -> None:
    made = planned({"memory": {"limit": 0}, "unified": {"memory.max": "7"}})
    assert "overridden" not in row(made, "memory.limit").why


def test_unified_saves_a_field_that_could_not_be_honoured() -> None:
    made = planned({"blockIO": {"weight": 10}, "unified": {"io.weight": "5"}}, disks={})
    assert made.unenforced == ()


def test_unified_is_written_line_by_line() -> None:
    made = planned({"unified": {"io.max": "8:0 rbps=1\n\n 8:16 wbps=2\n"}})
    assert [step.value for step in made.steps] == ["8:0 rbps=1", "8:16 wbps=2"]


def test_fields_that_share_a_line_share_the_write() -> None:
    made = planned({"cpu": {"quota": 5000, "period": 10000}})
    assert [found.field for found in made.rows] == ["cpu.quota", "cpu.period"]
    assert [step.value for step in made.steps] == ["5000 10000"]


def test_the_controllers_are_those_of_the_files() -> None:
    asked = {
        "cpu": {"shares": 5, "cpus": "0"},
        "unified": {"cgroup.max.depth": "1"},
        "blockIO": {"leafWeight": 10},
    }
    assert planned(asked).controllers == {"cpu", "cpuset"}


def test_a_lacking_controller_is_explained_as_the_host_does() -> None:
    made = planned(
        {"pids": {"limit": 5}}, controllers=frozenset(), lacking={"pids": Lack("it is v1's", "Boot anew.")}
    )
    (found,) = made.unenforced
    assert (found.file, found.value, found.why, found.remedy) == ("pids.max", "5", "it is v1's", "Boot anew.")
    assert (made.steps, made.controllers) == ((), frozenset())


@pytest.mark.parametrize("mode", ["unified", "hybrid", "legacy", "none"])
def test_every_kind_of_host_without_controllers_has_a_cure(mode: Any) -> None:
    made = plan(LinuxResources(memory=Memory(limit=5)), Abilities(mode=mode))
    (found,) = made.refused
    assert found.remedy


@pytest.mark.parametrize(
    ("asked", "changes", "cure"),
    [
        ({"memory": {"limit": 5, "swap": 6}}, {"files": frozenset({"memory.max"})}, "swapaccount=1"),
        ({"unified": {"memory.swap.max": "6"}}, {"files": frozenset({"memory.max"})}, "swapaccount=1"),
        ({"cpu": {"idle": 1}}, {"kernel": (5, 14)}, "Linux 5.15"),
        ({"cpu": {"burst": 1}}, {"kernel": (5, 13)}, "Linux 5.14"),
        ({"unified": {"memory.oom.group": "1"}}, {"files": frozenset({"memory.max"})}, "leave the field out"),
        ({"cpu": {"cpus": "0"}}, {"files": frozenset({"cpu.max"})}, "leave the field out"),
        ({"memory": {"reservation": 5}}, {"granted": {"memory.low": 4}}, "MemoryLow="),
        ({"memory": {"reservation": -1}}, {"granted": {"memory.low": 4}}, "MemoryLow="),
        ({"unified": {"memory.min": "1M"}}, {"granted": {"memory.min": 1048575}}, "MemoryMin="),
    ],
)
def test_what_the_kernel_or_the_tree_lacks_has_a_cure(
    asked: dict[str, Any], changes: dict[str, Any], cure: str
) -> None:
    unenforced = planned(asked, **changes).unenforced
    assert unenforced
    assert all(cure in (found.remedy or "") for found in unenforced)


@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        ({"memory": {"limit": -1}}, {"files": frozenset({"memory.max"})}),
        ({"memory": {"swap": -1}}, {"files": frozenset({"memory.max"})}),
        ({"cpu": {"idle": 1}}, {"kernel": (5, 14), "files": frozenset({"cpu.idle"})}),
        ({"cpu": {"idle": 1}}, {"kernel": (0, 0)}),
        ({"cpu": {"idle": 1}}, {"kernel": (5, 15)}),
        ({"memory": {"reservation": 5}}, {"granted": {"memory.low": 5}}),
        ({"memory": {"reservation": 5}}, {"granted": {"memory.min": 0}}),
        ({"unified": {"memory.min": "1M"}}, {"granted": {"memory.min": 1048576}}),
        ({"unified": {"memory.new": "1"}}, {"files": frozenset({"memory.max"})}),
    ],
)
def test_what_holds_is_not_called_lacking(asked: dict[str, Any], changes: dict[str, Any]) -> None:
    assert planned(asked, **changes).unenforced == ()


def test_a_lenient_field_is_reported_and_not_refused() -> None:
    resources = LinuxResources(memory=Memory(limit=5, swap=10))
    able = host(files=frozenset({"memory.max"}))
    made = plan(resources, able, lenient=frozenset({"memory.swap"}))
    assert [found.field for found in made.unenforced] == ["memory.swap"]
    assert made.refused == ()
    assert [found.field for found in plan(resources, able).refused] == ["memory.swap"]


def test_wrong_types_are_found_by_the_plan() -> None:
    with pytest.raises(ResourcesError) as caught:
        plan(LinuxResources(memory=Memory(limit="64M")), ABLE)  # type: ignore[arg-type]
    assert caught.value.path == "memory.limit"


def test_the_network_is_in_the_plan_as_far_as_it_can_be_in_force() -> None:
    made = planned({"network": {"classID": 5}}, network=Networking())
    assert made.network == NetworkPlan(markings=(Marking(5),), limits={"network.classID": "0:5"})
    assert planned({"network": {"classID": 5}}).network is None  # nobody looked


few = st.integers(-2, 5) | st.integers(0, 2**40)
counts = st.integers(0, 5) | st.integers(0, 2**40)
throttles = st.lists(
    st.fixed_dictionaries(
        {"major": st.just(8), "minor": st.sampled_from([0, 1, 16, 32, 48]), "rate": counts}
    ),
    max_size=3,
)
keys = st.sampled_from(
    ["memory.max", "memory.high", "io.max", "pids.max", "cpu.max", "a/b", "foo.bar", "cgroup.procs"]
)
resources_json = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(["limit", "reservation", "swap", "kernel"], few)
        ),
        "cpu": st.fixed_dictionaries(
            {},
            optional={"quota": few, "idle": st.integers(-1, 2), "cpus": st.text("0123,-", max_size=4)}
            | dict.fromkeys(["shares", "period", "burst", "realtimePeriod"], counts),
        ),
        "pids": st.fixed_dictionaries({}, optional={"limit": few}),
        "blockIO": st.fixed_dictionaries(
            {},
            optional={
                "weight": st.integers(0, 1100),
                "throttleReadBpsDevice": throttles,
                "throttleWriteIOPSDevice": throttles,
            },
        ),
        "hugepageLimits": st.lists(
            st.fixed_dictionaries({"pageSize": st.sampled_from(["2MB", "1GB", "../x"]), "limit": counts}),
            max_size=2,
        ),
        "rdma": st.dictionaries(
            st.text(max_size=3), st.fixed_dictionaries({}, optional={"hcaHandles": counts})
        ),
        "unified": st.dictionaries(keys | st.text(max_size=8), st.text(max_size=4)),
        "devices": st.just([]),
    },
)


@given(
    resources_json,
    st.sampled_from([ABLE, host(controllers=frozenset()), host(disks=None), host(files=frozenset())]),
)
def test_any_plan_is_sound(asked: dict[str, Any], able: Abilities) -> None:
    try:
        resources = LinuxResources.from_json(json.dumps(asked))
        made = plan(resources, able)
    except ResourcesError as e:
        assert e.cause  # noqa: PT017  most of what hypothesis thinks of is nonsense
        return
    assert plan(resources, able) == made
    for step in made.steps:
        assert step.value.strip() == step.value != ""
        assert "\n" not in step.value
        assert "/" not in step.file
        assert step.file not in {"", ".", ".."}
        assert step.file.partition(".")[0] in able.controllers | {"cgroup"}
    assert all(found.remedy if not found.enforceable else found.remedy is None for found in made.rows)
    assert _asked(asked) <= {found.field for found in made.rows}


def _asked(asked: dict[str, Any]) -> set[str]:
    """The fields that must show up."""
    fields = {
        f"{part}.{name}"
        for part in ("memory", "cpu", "pids", "rdma", "unified")
        for name in asked.get(part, {})
    }
    for name, value in asked.get("blockIO", {}).items():
        fields |= (
            {f"blockIO.{name}[{i}]" for i in range(len(value))}
            if isinstance(value, list)
            else {f"blockIO.{name}"}
        )
    fields |= {f"hugepageLimits[{i}]" for i in range(len(asked.get("hugepageLimits", ())))}
    return fields | ({"devices"} if "devices" in asked else set())


@given(st.integers(1, 2**50), st.integers(0, 2**50))
def test_swap_is_what_is_asked_beyond_the_limit(limit: int, beyond: int) -> None:
    written = values({"memory": {"limit": limit, "swap": limit + beyond}})
    assert written == {"memory.max": str(limit), "memory.swap.max": str(beyond)}
