"""Limits of a slice that is made inside of another slice: its own bite, and the outer ones hold for both."""

import sys
from pathlib import Path

import pytest

from tests.host.command import SWARMCG, Command

EAT = "import sys; bytearray(b'x') * (int(sys.argv[1]) << 20)"


@pytest.fixture
def swarmcg(home: Path, tmp_path: Path) -> Command:
    return Command(home, tmp_path)


@pytest.mark.parametrize(
    ("outer", "inner", "reason"), [("256m", "32m", "oom-own-limit"), ("48m", "256m", "oom-ancestor")]
)
def test_the_narrower_limit_kills(swarmcg: Command, outer: str, inner: str, reason: str) -> None:
    eat = (sys.executable, "-I", "-S", "-c", EAT, "96")
    nested = (SWARMCG, "run", "--id", "inner", "-m", inner, "--memory-swap", inner, "--", *eat)
    ended = swarmcg("run", "--id", "outer", "-m", outer, "--memory-swap", outer, "--", *nested)
    assert ended.returncode == 137, ended.stderr
    found = {report.bot_id: report for report in swarmcg.reports()}
    assert found["inner"].signal == 9
    assert found["inner"].limits["memory.max"] == str(int(inner[:-1]) << 20)
    assert found["inner"].unenforced == ()
    assert (found["inner"].reason, found["outer"].reason) == (reason, "exited")
