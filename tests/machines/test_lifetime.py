"""No QEMU outlives scripts/vm, whatever ends that; and what comes out of a machine. It needs the image."""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.host.engine import until

ROOT: Final = Path(__file__).parents[2]
SOON_S: Final = 180.0


@contextlib.contextmanager
def machine(*words: str) -> Iterator[tuple[psutil.Process, int]]:
    """A scripts/vm that runs something endless, and a pidfd of the QEMU that it started."""
    run = subprocess.Popen(
        [ROOT / "scripts" / "vm", "run", *words, "--", "sleep", "1000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    script = psutil.Process(run.pid)
    try:
        qemu = until(lambda: next((p for p in script.children() if "qemu" in p.name()), None))
        pidfd = os.pidfd_open(qemu.pid)
        try:
            yield script, pidfd
        finally:
            os.close(pidfd)
    finally:
        run.kill()
        run.communicate()


def ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], SOON_S)[0])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_qemu_ends_with_the_script(how: signal.Signals) -> None:
    with machine() as (script, qemu):
        script.send_signal(how)
        assert ended(qemu)


def test_qemu_ends_at_its_time_limit(tmp_path: Path) -> None:
    with machine("--time-limit", "2", "--results", str(tmp_path / "results")) as (script, qemu):
        assert ended(qemu)
        assert script.wait(SOON_S) == 99  # no exit status came out of the machine


def test_exit_status_journal_and_results_come_out(tmp_path: Path) -> None:
    extra = tmp_path / "word"
    extra.write_text("hello\n")
    results = tmp_path / "results"
    inside = "cp /opt/swarmcg/extra/word /opt/swarmcg/results/; pwd; exit 7"
    flags = ("--results", str(results), "--with", str(extra))
    done = subprocess.run(
        [ROOT / "scripts" / "vm", "run", *flags, "--", "sh", "-c", inside],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7
    assert "\n/opt/swarmcg/checkout\n" in done.stdout
    assert (results / "word").read_text() == "hello\n"
    assert "\n/opt/swarmcg/checkout\n" in (results / "console").read_text()
    assert "swarmcg-payload.service" in (results / "journal").read_text()


def test_a_word_that_is_no_flag_is_refused() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "vm", "build", "--colour"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--colour" in done.stderr
