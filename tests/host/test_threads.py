"""A program with busy threads that was loaded before the library: starts from many threads at once."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from swarmcg.testing import SwarmingServer
from tests.host.engine import slices

SOON_S: Final = 120.0
PROGRAM: Final = """
import json, sys, threading

over = threading.Event()
gate = threading.Barrier(4)
reasons = []

def spin():
    while not over.is_set():
        sum(range(1000))

def run(number):
    gate.wait()
    import swarmcg  # the first use of its names, by all at once
    with lock:
        if not starters:
            starters.append(swarmcg.Starter(sys.argv[1], home=sys.argv[2]))
    work = f"{sys.argv[3]}/{number}"
    bot = starters[0].start(swarmcg.Config(f"bot-{number}", work, python_version=sys.executable))
    started.wait()
    bot.terminate_or_kill(60)
    reasons.append(bot.wait(0).reason)

lock, starters, started = threading.Lock(), [], threading.Barrier(4)
busy = [threading.Thread(target=spin) for _ in range(8)]
starting = [threading.Thread(target=run, args=(number,)) for number in range(4)]
for thread in busy + starting:
    thread.start()
for thread in starting:
    thread.join()
over.set()
starters[0].close()
print(json.dumps(reasons))
"""


def test_bots_are_started_from_many_threads_of_a_busy_program(home: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="t") as directory, SwarmingServer() as server:
        for number in range(4):
            os.mkdir(f"{directory}/{number}")
        line = [sys.executable, "-W", "error", "-c", PROGRAM, server.url, str(home), directory]
        env = os.environ | {
            "SWARMCG_STATE_DIR": str(tmp_path / "s"),
            "SWARMCG_CACHE_DIR": str(tmp_path / "c"),
        }
        done = subprocess.run(line, env=env, check=True, capture_output=True, text=True, timeout=SOON_S)
    assert json.loads(done.stdout) == ["terminated"] * 4
    assert len((tmp_path / "s" / "reports.jsonl").read_bytes().splitlines()) == 4
    assert slices(home) == []
