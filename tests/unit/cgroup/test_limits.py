"""The limits of a slice as they are told: a bot may have written what is recorded of them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmcg.cgroup.limits import Limits, limits_of, recorded_as
from swarmcg.cgroup.recorded import is_limit_file
from swarmcg.cgroup.slice import Slice
from swarmcg.resources import unified

CHUNK = 1 << 16


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Slice]:
    """A plain directory as a slice."""
    with contextlib.closing(Slice.visit(str(tmp_path))) as held:
        yield held


def shown(held: Slice, name: str, text: str) -> str:
    """What is told of a file with this text, which was recorded as ``as it was``."""
    Path(held.path, name).write_text(text)
    return limits_of(held, Limits(limits={name: "as it was"})).limits[name]


def test_a_limit_is_told_as_its_file_shows_it_now(held: Slice) -> None:
    assert shown(held, "pids.max", "5\n") == "5"
    assert shown(held, "io.max", "8:0 rbps=1\n" * 5000) == "\n".join(["8:0 rbps=1"] * 5000)
    assert limits_of(held, Limits(limits={"network.classID": "1:10"})).limits == {"network.classID": "1:10"}


@pytest.mark.parametrize(
    ("name", "text"), [("cgroup.procs", "1\n"), ("cgroup.threads", "1\n"), ("memory.max", "1" * (CHUNK + 1))]
)
def test_what_is_no_limit_or_has_no_end_is_not_read(held: Slice, name: str, text: str) -> None:
    assert shown(held, name, text) == "as it was"


@pytest.mark.parametrize(
    "garbled",
    [
        {"limits": {f"f{k}": "" for k in range(2049)}},
        {"limits": {"f" * 201: ""}},
        {"unenforced": [{"field": "f", "file": None, "value": None, "why": "", "enforceable": False}] * 1025},
    ],
)
def test_more_than_we_ever_record_counts_as_not_recorded(garbled: dict[str, Any]) -> None:
    assert recorded_as(garbled, {"limits": {"pids.max": "5"}}) == Limits(limits={"pids.max": "5"})


def test_every_file_that_may_be_asked_for_is_a_limit() -> None:
    for name in (*(f"{controller}.a-b_C.2MB" for controller in unified.CONTROLLERS), *unified.HARMLESS):
        assert is_limit_file(name), name
