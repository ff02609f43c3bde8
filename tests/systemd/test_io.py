"""The io controller on a whole disk: rates that are kept, and weights that bite where BFQ or io.cost is on."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.host.command import Command
from tests.systemd.machine import KEEP_BUSY, MB, PYTHON, only_report, resources, sharing, wait_for

# Waits until its fifo is closed by who writes to it; then says how much it read in four seconds.
COMPETE: Final = """
import mmap, os, sys, time
disk = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 65536)
print("ready", flush=True)
open(sys.argv[2]).read()
end, turn = time.monotonic() + 4, 0
while time.monotonic() < end:
    os.preadv(disk, [buffer], int(sys.argv[3]) + turn % 1600 * 65536)
    turn += 1
print(turn)
"""


@pytest.mark.full  # tests/kernel/test_limits.py shows it, too
@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (("--device-read-bps", 4 * MB), ("read", "131072", "128")),
        (("--device-write-bps", 4 * MB), ("write", "131072", "128")),
        (("--device-read-iops", 100), ("read", "4096", "400")),
        (("--device-write-iops", 100), ("write", "4096", "400")),
    ],
)
def test_a_rate_is_kept(
    home: Path, tmp_path: Path, scratch_disk: Path, limit: tuple[str, int], words: tuple[str, str, str]
) -> None:
    command = Command(home, tmp_path)
    flag, rate = limit
    done = command("run", flag, f"{scratch_disk}:{rate}", "--", *PYTHON, KEEP_BUSY, str(scratch_disk), *words)
    assert done.stderr == ""
    assert float(done.stdout) == pytest.approx(rate, rel=0.15)
    assert str(rate) in only_report(command).limits["io.max"]


@pytest.mark.full
@pytest.mark.parametrize(("how", "holds"), [("bfq", "io.bfq.weight"), ("io.cost", "io.weight")])
def test_the_heavier_bot_reads_more(
    home: Path, tmp_path: Path, scratch_disk: Path, how: str, holds: str
) -> None:
    with sharing(how, scratch_disk):
        light, heavy, file = _competed(home, tmp_path, scratch_disk)
    assert file == holds
    assert heavy > 1.3 * light


@pytest.mark.full
def test_without_either_a_weight_is_refused(home: Path, tmp_path: Path) -> None:
    done = Command(home, tmp_path)("run", *resources(tmp_path, blockIO={"weight": 500}), "--", "true")
    assert done.returncode == 125
    assert "echo bfq >" in done.stderr


def _competed(home: Path, tmp_path: Path, disk: Path) -> tuple[int, int, str]:
    """How often two bots of the weights 100 and 800 read in the same time, and the file that held the weights."""
    fifos = [tmp_path / "light", tmp_path / "heavy"]
    places = ["0", str(128 * MB)]
    command = Command(home, tmp_path)
    with ExitStack() as stack:
        bots = []
        for fifo, place, weight in zip(fifos, places, ("100", "800"), strict=True):
            os.mkfifo(fifo)
            words = (disk, fifo, place)
            running = command.running(
                "run", "--blkio-weight", weight, "--", *PYTHON, COMPETE, *map(str, words)
            )
            bots.append(stack.enter_context(running))
        wait_for("ready", *(bot.stdout for bot in bots))
        for stream in [fifo.open("w") for fifo in fifos]:
            stream.close()
        said = [int(bot.communicate(timeout=60)[0]) for bot in bots]
    (file,) = {name for report in command.reports() for name in report.limits}
    return said[0], said[1], file
