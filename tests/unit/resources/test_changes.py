"""What an update writes, in which order, and how each write is undone."""

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from swarmcg.errors import ResourcesError
from swarmcg.resources import Change, Line, LinuxResources, Memory, changes, check, companions, entry, plan
from tests.limits_model import FRESH, NONSENSE, UPDATES, WEIGHTS, Kernel, number, outcome
from tests.unit.resources.hosts import ABLE


def update(asked: dict[str, Any], /, weight: str | None = None, **now: str) -> tuple[Change, ...]:
    """The changes for files that show what a fresh slice does, but for ``now`` (with _ for the dots)."""
    shown = {**FRESH, "memory.current": "0", **{name.replace("_", "."): text for name, text in now.items()}}
    resources = LinuxResources.from_json(json.dumps(asked))
    made = plan(resources, ABLE, now=shown)
    check(resources, made, shown)
    return changes(made, shown, weight=weight)


def lines(found: tuple[Change, ...]) -> list[tuple[str, str]]:
    return [(change.file, change.value) for change in found]


def test_quota_and_period_keep_each_other() -> None:
    assert lines(update({"cpu": {"quota": 5000}}, cpu_max="20000 50000")) == [("cpu.max", "5000 50000")]
    assert lines(update({"cpu": {"period": 10000}}, cpu_max="20000 50000")) == [("cpu.max", "20000 10000")]
    assert lines(update({"cpu": {"quota": -1}}, cpu_max="20000 50000")) == [("cpu.max", "max 50000")]


@pytest.mark.parametrize(
    ("asked", "files"),
    [
        ({"pids": {"limit": 7}}, set()),
        ({"cpu": {"idle": 1}}, {"cpu.max", "cpu.max.burst", "cpu.idle", "cpu.weight"}),
        ({"unified": {"cpu.max": "max"}}, {"cpu.max", "cpu.max.burst", "cpu.idle", "cpu.weight"}),
        ({"memory": {"swap": 8192}}, {"memory.max"}),
        ({"memory": {"limit": 8192, "checkBeforeUpdate": True}}, {"memory.max", "memory.current"}),
    ],
)
def test_what_an_update_must_know_beside_what_it_names(asked: dict[str, Any], files: set[str]) -> None:
    assert set(companions(LinuxResources.from_json(json.dumps(asked)))) == files


def test_swap_alone_is_told_apart_by_the_limit_in_force() -> None:
    assert lines(update({"memory": {"swap": 8192}}, memory_max="4096")) == [("memory.swap.max", "4096")]
    with pytest.raises(ResourcesError, match=r"needs a memory\.limit"):
        update({"memory": {"swap": 8192}})
    assert update({"memory": {"swap": -1}}, memory_max="4096") == ()


def test_a_limit_alone_leaves_swap() -> None:
    assert lines(update({"memory": {"limit": 8192}}, memory_swap_max="0")) == [("memory.max", "8192")]


def test_what_is_in_force_already_is_not_written() -> None:
    assert update({"memory": {"limit": 4097}, "pids": {"limit": -1}}, memory_max="4096") == ()


def test_swap_is_raised_before_memory_and_lowered_after_it() -> None:
    asked = {"memory": {"limit": 8192, "swap": 16384}}
    assert lines(update(asked, memory_max="4096", memory_swap_max="0")) == [
        ("memory.swap.max", "8192"),
        ("memory.max", "8192"),
    ]
    assert lines(update(asked, memory_max="16384", memory_swap_max="max")) == [
        ("memory.max", "8192"),
        ("memory.swap.max", "8192"),
    ]


def test_a_burst_goes_up_after_its_quota_and_down_before_it() -> None:
    up = update({"cpu": {"quota": 9000, "burst": 8000}}, cpu_max="5000 100000")
    assert [change.file for change in up] == ["cpu.max", "cpu.max.burst"]
    down = update({"cpu": {"quota": 5000, "burst": 0}}, cpu_max="9000 100000", cpu_max_burst="8000")
    assert [change.file for change in down] == ["cpu.max.burst", "cpu.max"]


@pytest.mark.parametrize(
    ("asked", "now", "cause"),
    [
        ({"cpu": {"burst": 6000}}, {"cpu_max": "5000 100000"}, "exceed the quota"),
        ({"cpu": {"quota": 5000}}, {"cpu_max_burst": "6000"}, "less than the burst in force"),
        ({"cpu": {"shares": 1024}}, {"cpu_idle": "1"}, "is idle"),
        ({"memory": {"limit": 4096, "checkBeforeUpdate": True}}, {"memory_current": "4096"}, "uses 4096"),
    ],
)
def test_what_the_rest_of_the_slice_contradicts_is_refused(
    asked: dict[str, Any], now: dict[str, str], cause: str
) -> None:
    with pytest.raises(ResourcesError, match=cause) as caught:
        update(asked, **now)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"memory": {"limit": 1024}}, "memory.limit"),
        ({"memory": {"reservation": 4095}}, "memory.reservation"),
        ({"unified": {"memory.high": "3k"}}, "unified.memory.high"),
        ({"unified": {"memory.swap.max": "1"}}, "unified.memory.swap.max"),
    ],
)
def test_what_the_kernel_would_round_down_to_nothing_is_refused(asked: dict[str, Any], path: str) -> None:
    with pytest.raises(ResourcesError, match="rounds down, here to 0") as caught:
        update(asked)
    assert (caught.value.path, caught.value.remedy) == (path, "Give 4096 bytes or more.")


def test_the_page_that_sizes_are_rounded_to_is_the_host_s() -> None:
    asked = LinuxResources(memory=Memory(limit=16384))
    made = plan(asked, ABLE, now=FRESH)
    check(asked, made, FRESH)
    with pytest.raises(ResourcesError, match="65536"):
        check(asked, made, FRESH, page_size=65536)


def test_nothing_is_taken_where_nothing_is_asked_for() -> None:
    """No swap at all is what both numbers say; the limit in force is the first of them, rounded down."""
    found = update({"memory": {"swap": 8193}, "unified": {"memory.high": "0x0"}}, memory_max="8192")
    assert lines(found) == [("memory.high", "0x0"), ("memory.swap.max", "1")]


def test_without_a_check_a_limit_below_what_is_used_is_written() -> None:
    assert lines(update({"memory": {"limit": 4096}}, memory_current="8192")) == [("memory.max", "4096")]
    above = {"memory": {"limit": 12288, "checkBeforeUpdate": True}}
    assert lines(update(above, memory_current="8192")) == [("memory.max", "12288")]


def test_a_weight_goes_in_once_the_slice_is_not_idle() -> None:
    found = update({"cpu": {"shares": 2000, "idle": 0}}, cpu_idle="1", cpu_weight="0")
    assert lines(found) == [("cpu.idle", "0"), ("cpu.weight", "170")]


def test_who_is_idle_no_more_has_the_weight_of_before() -> None:
    found = update({"cpu": {"idle": 0}}, weight="170", cpu_idle="1", cpu_weight="0")
    assert lines(found) == [("cpu.idle", "0"), ("cpu.weight", "170")]


def test_idle_is_undone_with_the_weight_that_it_made_the_kernel_forget() -> None:
    (change,) = update({"cpu": {"idle": 1}}, cpu_weight="170")
    assert change.undo == (Line("cpu.idle", "0"), Line("cpu.weight", "170"))


@pytest.mark.parametrize(
    ("unified", "now", "undo"),
    [
        (
            {"io.max": "8:0 rbps=1000"},
            {"io.max": "8:16 rbps=9 wbps=max riops=max wiops=max"},
            ("io.max", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ),
        (
            {"io.max": "8:0 rbps=1000"},
            {"io.max": "8:0 rbps=9 wbps=max riops=7 wiops=max"},
            ("io.max", "8:0 rbps=9 wbps=max riops=7 wiops=max"),
        ),
        ({"io.weight": "200"}, {"io.weight": "default 100\n8:0 300"}, ("io.weight", "default 100")),
        ({"io.weight": "8:0 200"}, {"io.weight": "default 100"}, ("io.weight", "8:0 default")),
        (
            {"rdma.max": "mlx hca_handle=2"},
            {"rdma.max": ""},
            ("rdma.max", "mlx hca_handle=max hca_object=max"),
        ),
        ({"cpuset.cpus": "0"}, {"cpuset.cpus": ""}, ("cpuset.cpus", "\n")),
        (
            {"cpuset.cpus.partition": "root"},
            {"cpuset.cpus.partition": "member"},
            ("cpuset.cpus.partition", "member"),
        ),
        ({"cpu.weight.nice": "5"}, {"cpu.weight.nice": "-2"}, ("cpu.weight", "100")),
    ],
)
def test_one_device_s_line_is_undone_without_touching_others(
    unified: dict[str, str], now: dict[str, str], undo: tuple[str, str]
) -> None:
    resources = LinuxResources(unified=unified)
    (change,) = changes(plan(resources, ABLE, now=FRESH), {**FRESH, **now})
    assert change.undo == (Line(*undo),)


def test_an_entry_is_the_line_of_the_same_device() -> None:
    assert entry("io.max", "8:0 wbps=1", "8:16 rbps=2\n8:0 rbps=3 wbps=max") == "8:0 rbps=3 wbps=max"
    assert entry("cpu.max", "5000", "max 100000") == "max 100000"


@st.composite
def starts(draw: st.DrawFn) -> Kernel:
    """A slice after some updates of a fresh one."""
    files = FRESH
    for asked in draw(st.lists(UPDATES, min_size=1, max_size=3)):
        files = outcome(files, asked, "170" if files["cpu.weight"] == "0" else files["cpu.weight"]) or files
    return Kernel(files)


def awake_weight(kernel: Kernel) -> str:
    """A weight that a record could tell of, where the kernel has forgotten it."""
    weight = kernel.files["cpu.weight"]
    return "170" if weight == "0" else weight


@settings(max_examples=500)
@given(starts(), UPDATES)
def test_any_update_leads_to_what_the_model_says(kernel: Kernel, asked: dict[str, Any]) -> None:
    """Every write is accepted in its turn, and the end is the model's; or nothing is written at all."""
    weight = awake_weight(kernel)
    wanted = outcome(kernel.files, asked, weight)
    try:
        made = tried(asked, kernel, weight)
    except ResourcesError:
        assert wanted is None
        return
    if any(change.value == NONSENSE for change in made):
        assert wanted is None
        return
    before = dict(kernel.files)
    low = [min(sizes) for sizes in zip(room(before), room(wanted or before), strict=True)]
    for change in made:
        kernel.write(change.file, change.value)
        assert all(have >= least for have, least in zip(room(kernel.files), low, strict=True))
    assert kernel.files == wanted


@given(starts(), UPDATES, st.integers(0, 12))
def test_any_update_can_be_undone_from_anywhere(kernel: Kernel, asked: dict[str, Any], until: int) -> None:
    try:
        made = tried(asked, kernel, awake_weight(kernel))
    except ResourcesError:
        return
    before = dict(kernel.files)
    written = [change for change in made if change.value != NONSENSE][:until]
    for change in written:
        kernel.write(change.file, change.value)
    for change in reversed(written):
        for line in change.undo:
            kernel.write(*line)
    assert kernel.files == before


def tried(asked: dict[str, Any], kernel: Kernel, weight: str) -> tuple[Change, ...]:
    now = {name.replace(".", "_"): text for name, text in kernel.files.items()}
    return update(asked, weight=weight, **now)


def room(files: dict[str, str]) -> tuple[float, float]:
    """What must never be less than both before and after: room for memory in all, and for what is protected."""
    memory, swap = number(files["memory.max"]), number(files["memory.swap.max"])
    return memory + swap, memory


def test_the_weights_of_the_model_are_the_specification_s() -> None:
    for shares, weight in WEIGHTS.items():
        found = update({"cpu": {"shares": shares}}, cpu_weight="7")
        assert lines(found) == [("cpu.weight", str(weight))]
