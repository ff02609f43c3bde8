"""Counters become a report; what is absent is unknown, never 0. Plain files stand for the kernel's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from swarmcg.bot import Cpu, Io, Pressure, Stall
from swarmcg.cgroup import files
from swarmcg.cgroup.files import Cgroup, exchange_line, read_text, read_value, write_line
from swarmcg.cgroup.usage import Usage, usage

FILES = {
    "cpu.stat": "usage_usec 3\nuser_usec 2000000\nsystem_usec 500000\nthrottled_usec 250000\n",
    "memory.peak": "4096\n",
    "memory.swap.peak": "0\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 rbytes=10 wbytes=20 rios=30 wios=40\n7:0 \n",
    "pids.peak": "12\n",
    "memory.events": "low 0\nhigh 0\nmax 5\noom 1\noom_kill 2\n",
    "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n",
    "memory.pressure": "some avg10=0.00 total=1000000\nfull avg10=0.00 total=500000\n",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def test_every_counter_is_read(directory: Path) -> None:
    for name, text in FILES.items():
        (directory / name).write_text(text)
    assert usage(Cgroup(str(directory)).files) == Usage(
        cpu=Cpu(user_s=2.0, system_s=0.5, throttled_s=0.25),
        memory_peak_bytes=4096,
        swap_peak_bytes=0,
        io=Io(read_bytes=11, write_bytes=22, read_ops=33, write_ops=44),
        pids_peak=12,
        oom_kills=2,
        pressure=Pressure(cpu=Stall(some_s=1.5), memory=Stall(some_s=1.0, full_s=0.5)),
    )


def test_without_controllers_nothing_is_known(directory: Path) -> None:
    assert usage(Cgroup(str(directory)).files) == Usage()


def test_no_io_at_all_is_a_true_zero(directory: Path) -> None:
    (directory / "io.stat").write_text("")
    assert usage(Cgroup(str(directory)).files).io == Io(read_bytes=0, write_bytes=0, read_ops=0, write_ops=0)


def test_a_limitless_value_is_none(directory: Path) -> None:
    (directory / "memory.peak").write_text("max\n")
    assert Cgroup(str(directory)).files.memory_peak is None


@pytest.mark.parametrize("garbled", ["x\n", "1 2\n", ""])
def test_a_counter_that_cannot_be_read_is_no_number(directory: Path, garbled: str) -> None:
    (directory / "memory.peak").write_text(garbled)
    with pytest.raises(ValueError, match="invalid literal"):
        usage(Cgroup(str(directory)).files)


@pytest.mark.parametrize("write", [write_line, exchange_line])
def test_files_are_never_made_by_writing(directory: Path, write: Callable[[str, str], object]) -> None:
    with pytest.raises(FileNotFoundError):
        write(str(directory / "memory.max"), "1")
    assert list(directory.iterdir()) == []


def test_what_was_written_is_read_back_from_the_file(directory: Path) -> None:
    (directory / "memory.max").write_text("4095 kept\n")
    assert exchange_line(str(directory / "memory.max"), "4096") == "4096 kept"  # a plain file is not cut


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 8, 9])
def test_a_value_is_read_whole_however_long_it_is(
    directory: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(files, "_CHUNK", 4)
    (directory / "io.max").write_text("x" * length)
    assert read_value(str(directory / "io.max")) == "x" * length


def test_lines_are_written_one_by_one(directory: Path) -> None:
    (directory / "io.max").touch()
    Cgroup(str(directory)).files.set_property("io.max", "8:0 rbps=1\n8:16 rbps=2")
    assert read_text(str(directory / "io.max")) == "8:16 rbps=2"  # a plain file keeps the last write


def test_text_that_is_no_text_is_read(directory: Path) -> None:
    (directory / "comm").write_bytes(b"\xff\n")
    assert read_text(str(directory / "comm")) == "\udcff"
