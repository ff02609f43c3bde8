"""The bots unit on a plain cgroup: what systemd does with its cgroup needs no systemd to be tried."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from swarmcg.bot import ExitReport
from swarmcg.cgroup.names import is_slice_name
from tests import cgroups
from tests.host.command import SOON_S, SWARMCG
from tests.host.engine import until


class Unit:
    """A unit's cgroup, its state, and the command as one calls it where a unit runs: without naming a home."""

    def __init__(self, directory: Path, state: Path) -> None:
        self.directory: Final = directory
        self.leaf: Final = directory / "keeper"
        self.bots: Final = directory / "bots"
        self.socket: Final = state / "run" / "keeper.sock"
        self.journal = state / "state" / "reports.jsonl"
        self.env: Final = os.environ | {
            "SWARMCG_STATE_DIR": str(self.journal.parent),
            "SWARMCG_RUNTIME_DIR": str(self.socket.parent),
            "SWARMCG_CACHE_DIR": str(state / "cache"),
        }

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        settings: dict[str, Any] = {"env": self.env, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run(
            [SWARMCG, *words], check=False, capture_output=True, text=True, timeout=SOON_S, **settings
        )

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A call that goes on. It is ended by force if the test did not see to its end."""
        with subprocess.Popen(
            [SWARMCG, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def start(self) -> None:
        done = self("host", "start", "--home", str(self.directory))
        assert (done.returncode, done.stderr) == (0, "")

    def stop(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self("host", "stop", *words)

    def detach(self, bot_id: str, *command: str, flags: Sequence[str] = ()) -> tuple[int, str]:
        """Starts a detached command; its pid and its slice."""
        done = self("run", "--detach", "--id", bot_id, *flags, "--", *command)
        assert (done.returncode, done.stderr) == (0, "")
        head, row = (text.split("\t") for text in done.stdout.splitlines())
        assert (head, row[0]) == (["ID", "PID", "SLICE"], bot_id)
        return int(row[1]), row[2]

    def slices(self) -> list[str]:
        names = os.listdir(self.bots) if self.bots.exists() else []
        return sorted(name.partition(".")[0] for name in names if is_slice_name(name))

    def reports(self) -> dict[str, ExitReport]:
        """By id; a bot that was reported twice fails the test."""
        lines = self.journal.read_bytes().splitlines() if self.journal.exists() else []
        found = [ExitReport.from_json(text) for text in lines]
        assert len({report.incarnation for report in found}) == len(found)
        return {report.bot_id: report for report in found}

    def report(self, bot_id: str) -> ExitReport:
        return until(lambda: self.reports().get(bot_id))

    def processes(self) -> dict[str, int]:
        """Who serves the unit: the process that commands (``host``) and the keeper."""
        found = {}
        for pid in cgroups.pids(self.leaf) if self.leaf.exists() else []:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found["keeper" if b"-S" in words else "host"] = pid
        return found

    def kill(self, *names: str) -> None:
        """Kills them as if at once: neither acts on the other's death."""
        before = self.processes()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for name in names:
                os.kill(before[name], number)
        until(lambda: not any(lives(before[name]) for name in names))

    def wait_for(self, *names: str) -> None:
        until(lambda: set(names) <= self.processes().keys())


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False
