"""The end of many."""

import signal
import time
from pathlib import Path
from typing import Final

import pytest

from tests.host.command import Command
from tests.systemd.machine import PYTHON, only_report, wait_for

MANY: Final = 1000
FORK: Final = f"""
import os, signal
for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(sig, signal.SIG_IGN)
for _ in range({MANY - 1}):
    if os.fork() == 0:
        os.setsid()
        while True: signal.pause()
print("ready", flush=True)
while True: signal.pause()
"""


@pytest.mark.full
def test_a_thousand_processes_that_ignore_every_signal_are_gone_in_seconds(
    home: Path, tmp_path: Path
) -> None:
    command = Command(home, tmp_path)
    with command.running("run", "--grace", "1", "--", *PYTHON, FORK) as run:
        wait_for("ready", run.stdout)
        began = time.monotonic()
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=120)
        took = time.monotonic() - began
    report = only_report(command)
    assert (report.reason, report.signal) == ("killed-after-grace", signal.SIGKILL)
    assert report.pids_peak in {None, MANY}  # counted since Linux 6.1
    assert command.slices() == []
    print(f"{MANY} processes: gone {took:.1f} s after SIGTERM, with a grace of 1 s")
    assert took < 60
