"""The limits of a slice as they are told: a bot may have written what is recorded of them."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmcg.cgroup.limits import Limits, limits_at_end, limits_of, recorded_as
from swarmcg.cgroup.recorded import is_limit_file
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import NetworkError
from swarmcg.resources import NetworkPlan, Rate, unified

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


RULES = NetworkPlan(egress=Rate("eth0", 5000), limits={"bandwidth.egress_bps": "eth0 5000"})
START = Limits(limits={"pids.max": "5", **RULES.limits})


def ask_the_kernel(
    held: Slice, monkeypatch: pytest.MonkeyPatch, answer: Callable[[], dict[str, str]]
) -> None:
    """Packet rules that are recorded with the slice, and what is found when they are looked for."""
    monkeypatch.setattr("swarmcg.cgroup.limits.network.missing", lambda *_: answer())
    monkeypatch.setattr(Slice, "filtered", lambda _: RULES)
    Path(held.path, "pids.max").write_text("7\n")


def test_packet_limits_that_are_gone_at_the_end_are_not_enforced(
    held: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_the_kernel(
        held, monkeypatch, lambda: {"bandwidth.egress_bps": "no class", "network.classID": "no table"}
    )
    told = limits_at_end(held, START)
    assert told.limits == {"pids.max": "7"}
    (row,) = told.unenforced
    assert (row.field, row.value, row.enforceable) == ("bandwidth.egress_bps", "eth0 5000", False)
    assert row.why.endswith("no class")


def test_packet_limits_that_are_there_at_the_end_are_told(
    held: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_the_kernel(held, monkeypatch, dict)
    told = limits_at_end(held, START)
    assert (told.limits, told.unenforced) == ({"pids.max": "7", **RULES.limits}, ())


@pytest.mark.parametrize("error", [NetworkError("no", errno=1), OSError(24, "Too many open files")])
def test_packet_limits_that_cannot_be_looked_up_are_told_as_recorded_and_that_is_said(
    held: Slice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail() -> dict[str, str]:
        raise error

    ask_the_kernel(held, monkeypatch, fail)
    assert limits_at_end(held, START) == limits_of(held, START)
    assert "is not known" in caplog.text
    caplog.clear()
    bare = Limits(limits={"pids.max": "5"})
    assert limits_at_end(held, bare).limits == {"pids.max": "7"}  # nobody looked
    assert caplog.text == ""


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
