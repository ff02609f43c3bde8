"""Limits of a bot really bite, are read back, and are all there or none."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from swarmcg.errors import CgroupError, StartError
from swarmcg.resources import LinuxResources
from swarmcg.supervisor.supervised import SupervisedBot
from tests.host.engine import SOON_S, Engine, compiled, slices

MB: Final = 1 << 20
SPIN: Final = "import time; end = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass"


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


def python(engine: Engine, program: str, resources: str, **launch: Any) -> SupervisedBot:
    asked = LinuxResources.from_json(resources)
    return engine.start(sys.executable, "-I", "-S", "-c", program, resources=asked, **launch)


def test_every_limit_is_read_back_from_the_slice(engine: Engine, home: Path) -> None:
    (home / "memory.low").write_text(str(32 * MB))  # else the reservation could not be honoured
    resources = LinuxResources.from_json(
        """{"memory": {"limit": 67108864, "swap": 100663296, "reservation": 33554432},
            "cpu": {"shares": 2048, "quota": 50000, "period": 100000}, "pids": {"limit": 64},
            "unified": {"memory.high": "50331648", "memory.min": "0"}}"""
    )
    bot = engine.start("sleep", "1000", resources=resources)
    there = {
        name: Path(bot.slice, name).read_text().strip()
        for name in os.listdir(bot.slice)
        if "." in name and _readable(name)
    }
    assert there["memory.max"] == "67108864"
    assert there["memory.swap.max"] == "33554432"
    assert there["memory.high"] == "50331648"
    assert there["memory.low"] == "33554432"
    assert there["cpu.max"] == "50000 100000"
    assert there["pids.max"] == "64"
    bot.terminate_or_kill(0)
    limits = bot.wait().limits
    assert {"memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max", "memory.high"} <= set(
        limits
    )
    assert {name: there[name] for name in limits} == limits


def _readable(name: str) -> bool:
    return name.endswith((".max", ".low", ".min", ".high", ".weight", ".group"))


def test_a_value_that_the_kernel_rounds_is_in_force_as_rounded(engine: Engine) -> None:
    bot = engine.start("true", resources=LinuxResources.from_json('{"memory": {"limit": 67108865}}'))
    assert bot.wait(SOON_S).limits["memory.max"] == "67108864"


def test_pids_max_refuses_forks_inside(engine: Engine) -> None:
    program = """
import os, sys
for number in range(20):
    try:
        if os.fork() == 0:
            while True: os.pause() if hasattr(os, "pause") else __import__("signal").pause()
    except OSError as e:
        sys.exit(100 + number if e.errno == 11 else 1)
"""
    report = python(engine, program, '{"pids": {"limit": 8}}').wait(SOON_S)
    assert (report.reason, report.exit_code) == ("exited", 107)
    assert report.leftovers.count == 7
    if report.pids_peak is not None:
        assert report.pids_peak == 8


def test_cpu_max_throttles_and_the_report_tells_for_how_long(engine: Engine) -> None:
    # A third of a processor: an emulated one starts an interpreter in seconds then, rather than in a minute.
    report = python(engine, SPIN, '{"cpu": {"quota": 15000, "period": 45000}}').wait(SOON_S)
    assert report.cpu.throttled_s is not None
    assert report.cpu.throttled_s > 0
    assert report.cpu.user_s is not None
    assert report.cpu.user_s > 0


@pytest.mark.storms
def test_a_bot_under_throttling_forking_and_pressure_is_gone_after_its_grace(
    engine: Engine, home: Path, tmp_path: Path
) -> None:
    if _kernel() >= (6, 12):
        pytest.skip(
            "user-mode-linux 6.12 panics when a process is killed in the midst of fork (in copy_process)"
        )
    storm = compiled("storm", tmp_path)
    if storm is None:
        pytest.skip("there is no C compiler")
    resources = LinuxResources.from_json(
        '{"cpu": {"quota": 40000, "period": 100000}, "pids": {"limit": 60}, "memory": {"limit": 67108864}}'
    )
    bot = engine.start(storm, "30", ready=True, resources=resources)
    bot.terminate_or_kill(0.5)
    report = bot.wait()
    assert report.reason == "killed-after-grace"
    assert report.leftovers.count >= 30
    assert slices(home) == []


def test_memory_high_slows_without_killing(engine: Engine) -> None:
    program = "b = bytearray(b'x') * (24 << 20)"
    report = python(engine, program, '{"unified": {"memory.high": "12582912"}}').wait(SOON_S)
    assert (report.reason, report.exit_code, report.oom_kills) == ("exited", 0, 0)


def test_memory_beyond_the_limit_goes_to_swap_as_far_as_that_is_allowed(engine: Engine) -> None:
    program = "b = bytearray(b'x') * (32 << 20)"
    roomy = python(engine, program, f'{{"memory": {{"limit": {24 * MB}, "swap": {56 * MB}}}}}').wait(SOON_S)
    assert (roomy.reason, roomy.exit_code) == ("exited", 0)
    tight = python(engine, program, f'{{"memory": {{"limit": {24 * MB}, "swap": {24 * MB}}}}}').wait(SOON_S)
    assert tight.reason == "oom-own-limit"
    assert tight.limits["memory.swap.max"] == "0"


def test_io_max_is_in_force_on_a_whole_disk(engine: Engine, scratch_disk: Path) -> None:
    number = os.stat(scratch_disk).st_rdev
    major, minor = os.major(number), os.minor(number)
    rate = f'[{{"major": {major}, "minor": {minor}, "rate": 8388608}}]'
    program = f"""
import mmap, os
fd = os.open({str(scratch_disk)!r}, os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 1 << 20)
for _ in range(4): os.readv(fd, [buffer])
"""
    report = python(engine, program, f'{{"blockIO": {{"throttleReadBpsDevice": {rate}}}}}').wait(SOON_S)
    assert report.exit_code == 0
    assert report.limits["io.max"].startswith(f"{major}:{minor} rbps=8388608")
    assert report.io.read_bytes == 4 * MB
    assert report.duration_s is not None
    assert report.duration_s > 0.2  # 4 MB at 8 MB/s, less the first slice of the throttle


def test_a_disk_that_is_not_there_is_an_error_and_leaves_nothing(engine: Engine, home: Path) -> None:
    resources = LinuxResources.from_json('{"unified": {"io.max": "250:77 rbps=1000"}}')
    with pytest.raises(CgroupError) as caught:
        engine.start("true", resources=resources)
    assert caught.value.errno == errno.ENODEV
    assert slices(home) == []


def test_limits_are_all_in_force_or_none(engine: Engine, home: Path) -> None:
    """The third write is one that the kernel refuses."""
    resources = LinuxResources.from_json(
        '{"memory": {"limit": 67108864}, "pids": {"limit": 10}, "unified": {"cpu.max": "nonsense"}}'
    )
    with pytest.raises(CgroupError) as caught:
        engine.start("true", resources=resources)
    assert caught.value.path is not None
    assert caught.value.path.endswith("/cpu.max")
    assert caught.value.value == "nonsense"
    assert slices(home) == []
    assert engine.reports() == []


def test_the_counters_of_a_report_are_known(engine: Engine, home: Path) -> None:
    report = python(engine, SPIN, '{"memory": {"limit": 67108864}}').wait(SOON_S)
    assert report.memory_peak_bytes is not None
    assert report.memory_peak_bytes > MB
    assert report.oom_kills == 0
    assert None not in {report.io.read_bytes, report.io.write_bytes, report.io.read_ops, report.io.write_ops}
    assert report.cpu.user_s is not None
    assert report.cpu.user_s >= 0.2
    assert (report.pids_peak is not None) == (_kernel() >= (6, 1) and _has(home, "pids.peak"))
    assert (report.swap_peak_bytes is not None) == _has(home, "memory.swap.peak")


def _has(home: Path, name: str) -> bool:
    return (home / name).exists()


def _kernel() -> tuple[int, int]:
    major, minor, *_ = os.uname().release.split(".")
    return int(major), int(minor)


def test_a_keeper_whose_fork_is_refused_names_the_ancestor_that_refused(home: Path, tmp_path: Path) -> None:
    crowd = home / "crowd"
    crowd.mkdir()
    with Engine(home, tmp_path) as engine:
        keeper = engine.keeper
        engine.start("true").wait(SOON_S)
        (crowd / "cgroup.procs").write_text(str(keeper.pid))
        (crowd / "pids.max").write_text("1")
        with pytest.raises(StartError) as caught:
            engine.start("true")
        assert (caught.value.step, caught.value.errno) == ("fork", errno.EAGAIN)
        assert caught.value.path == str(crowd / "pids.max")
        assert "pids.max" in (caught.value.cause or "")
        (crowd / "pids.max").write_text("max")
        assert engine.start("true").wait(SOON_S).exit_code == 0
    crowd.rmdir()


def test_a_slice_whose_own_limit_allows_no_process_says_so(engine: Engine, home: Path) -> None:
    """Joining passes a limit of 0, and the command runs: it only cannot fork."""
    resources = LinuxResources.from_json('{"unified": {"pids.max": "0"}}')
    report = engine.start("/bin/sh", "-c", "(exit 0); exit 5", resources=resources).wait(SOON_S)
    assert report.exit_code != 5
    assert slices(home) == []


# Eats, and writes down how much of that lies in compressed swap.
EAT_AND_TELL: Final = f"""
import os, sys
b = bytearray(b'x') * {40 * MB}
own = os.path.dirname("/sys/fs/cgroup" + open("/proc/self/cgroup").read().strip().split(":")[2])
told = next(line.split()[1] for line in open(f"{{own}}/memory.stat") if line.startswith("zswapped "))
open(sys.argv[1], "w").write(told)
"""


@pytest.mark.parametrize("limit", ["0", "max"])
def test_memory_goes_to_compressed_swap_as_far_as_that_is_allowed(
    engine: Engine, tmp_path: Path, limit: str
) -> None:
    """Otherwise it goes to the swap on the disk, which is allowed in both."""
    switch, told = Path("/sys/module/zswap/parameters/enabled"), tmp_path / "told"
    asked = {"memory": {"limit": 24 * MB, "swap": 80 * MB}, "unified": {"memory.zswap.max": limit}}
    resources = LinuxResources.from_json(json.dumps(asked))
    words = (sys.executable, "-I", "-S", "-c", EAT_AND_TELL, str(told))
    switch.write_text("Y")
    try:
        report = engine.start(*words, resources=resources).wait(SOON_S)
    finally:
        switch.write_text("N")
    assert (report.reason, report.exit_code) == ("exited", 0)
    assert report.limits["memory.zswap.max"] == limit
    assert (int(told.read_text()) > 8 * MB) is (limit == "max")
