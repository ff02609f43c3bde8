"""A process in state D survives every kill: said by name, bounded, fenced, and reported when it goes at last."""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcg import ladder
from swarmcg.errors import StuckError
from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.launch import Launch
from tests.host.engine import ENV, Driver, slices

FIFREEZE = 0xC0045877  # include/uapi/linux/fs.h
FITHAW = 0xC0045878


@pytest.fixture
def disk(scratch_disk: Path, tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "ext4", scratch_disk, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def frozen(place: Path) -> Iterator[None]:
    fd = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(fd, FITHAW, 0)
    finally:
        os.close(fd)


def test_a_writer_to_a_frozen_file_system(
    home: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "KILL_S", 0.5)
    driver = Driver(home, tmp_path)
    try:
        order = Order(["/bin/sh", "-c", f"echo x >{disk}/file; exit 3"], ENV, procs=-1, cwd="/")
        with frozen(disk), open(os.devnull, "rb+") as null:
            order.stdio = (null.fileno(), null.fileno(), null.fileno())
            bot = driver.supervisor.start(Launch(bot_id="bot"), order, driver)
            driver.turn_until(lambda: driver.began)
            assert bot.main is not None
            pid = bot.main.pid
            driver.turn_until(lambda: state(pid) == "D")
            bot.stop(0.1)
            driver.turn_until(lambda: driver.cries)
            (error, *_) = driver.cries
            assert isinstance(error, StuckError)
            assert f"pid {pid} sh state D in " in str(error.value)
            assert "in ?" not in str(error.value)
            assert slices(home) == [os.path.basename(bot.slice.path)]
            driver.turn_until(lambda: bot.given_up)
            assert driver.ends == []
        driver.turn_until(lambda: driver.ends)
    finally:
        driver.supervisor.close()
    (report, trouble), *_ = driver.ends
    assert trouble is None
    assert (report.reason, report.signal) == ("killed-after-grace", 9)
    assert slices(home) == []


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
