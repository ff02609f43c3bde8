import io

import pytest

from swarmcg.bot import Cpu, ExitReport, Leftovers, Row
from swarmcg.cli import outcome
from swarmcg.cli.tables import columns, printable, table
from swarmcg.errors import StateError


def report(**facts: object) -> ExitReport:
    known: dict[str, object] = {"bot_id": "b", "incarnation": "1", "reason": "exited", **facts}
    return ExitReport(**known)  # type: ignore[arg-type]  # facts are of many types


@pytest.mark.parametrize(
    ("facts", "status"), [({"exit_code": 0}, 0), ({"exit_code": 7}, 7), ({"signal": 9}, 137), ({}, 125)]
)
def test_the_exit_status_is_a_shells(facts: dict[str, object], status: int) -> None:
    assert outcome.status(report(**facts)) == status


@pytest.mark.parametrize(
    ("facts", "how"),
    [({"exit_code": 7}, "ended with exit code 7, "), ({"signal": 9}, "ended by signal 9, "), ({}, "ended, ")],
)
def test_trouble_after_the_end_tells_how_that_was(facts: dict[str, object], how: str) -> None:
    trouble = StateError(
        "The report could not be kept", path="/r", errno=28, cause="full", remedy="Free space."
    )
    told = outcome.trouble_after(report(**facts), trouble)
    assert type(told) is StateError
    assert str(told).splitlines()[0] == f"The command {how}but the report could not be kept (/r)"
    assert str(told).splitlines()[1:] == str(trouble).splitlines()[1:]


def test_a_report_shows_what_is_known_only() -> None:
    assert list(outcome.lines(report())) == [("id", "b"), ("incarnation", "1"), ("reason", "exited")]
    row = Row(field="cpu.quota", file="cpu.max", value="1", why="", enforceable=False)
    full = report(
        exit_code=0,
        reason_evidence="kmsg",
        cpu=Cpu(user_s=1, system_s=0.5),
        memory_peak_bytes=3 << 29,
        leftovers=Leftovers(count=2, names=("a", "b")),
        limits={"pids.max": "5"},
        unenforced=(row,),
    )
    shown = dict(outcome.lines(full))
    assert shown["reason"] == "exited (evidence: kmsg)"
    assert shown["exit code"] == "0"
    assert shown["processor time"] == "1.500 s"
    assert shown["memory peak"] == "1.5 GiB"
    assert shown["killed at the end"] == "2 (a, b)"
    assert shown["limits"] == "pids.max 5"
    assert shown["not in force"] == "cpu.quota"


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (5 << 50, "5120 TiB")]
)
def test_sizes_are_shown_in_the_unit_that_fits(count: int, shown: str) -> None:
    assert dict(outcome.lines(report(swap_peak_bytes=count)))["swap peak"] == shown


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_columns_and_others_tabs() -> None:
    for out, text in ((Tty(), "A    B\nlong c\n"), (io.StringIO(), "A\tB\nlong\tc\n")):
        table(("A", "B"), [("long", "c")], out)
        assert out.getvalue() == text.replace("long c", "long  c").replace("A    B", "A     B")


def test_columns_end_without_blanks() -> None:
    assert columns([("a", "b"), ("cc", "")]) == ["a   b", "cc"]


def test_nothing_from_outside_moves_the_cursor_or_breaks_a_line() -> None:
    assert printable("a\x1b[2J\n\udcff é") == "a\\x1b[2J\\n\\udcff é"


def test_a_command_that_was_killed_for_want_of_memory_is_told_of() -> None:
    limits = {"memory.max": "67108864"}
    own = outcome.want_of_memory(report(reason="oom-own-limit", limits=limits))
    assert own == "memory limit 67108864: killed for want of memory (oom-own-limit)"
    host = outcome.want_of_memory(report(reason="oom-host", limits=limits))
    assert host == "killed for want of memory (oom-host)"
    assert outcome.want_of_memory(report(reason="signaled", signal=9, limits=limits)) is None
