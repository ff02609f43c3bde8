"""scripts/clean-check leaves nothing below the cache, whatever ends it. What it builds is pretended."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.host.engine import SOON_S

SCRIPTS: Final = Path(__file__).parents[2] / "scripts"
CHECK: Final = """
import sys
from pathlib import Path
from checks import clean, debian
clean.CACHE = Path(sys.argv[1])
debian.provide = lambda *_: True
debian.sources_of = lambda _: "none"
WRITER = 'mkdir $0 && echo ready && while :; do mkdir -p $0/a/b/c; touch $0/a/b/c/$((i += 1)); done'
def build(suite, root, sources):
    # The child of a child goes on writing when only the one that was started is killed.
    clean.contained(["sh", "-c", 'sh -c "$1" "$0" & wait', str(root), WRITER], 60)
clean._build = build
sys.argv[1:] = ["bookworm"]
sys.exit(clean.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_removes_the_root(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", CHECK, str(tmp_path)]
    env = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(SOON_S) == 128 + number
    assert os.listdir(tmp_path) == []
