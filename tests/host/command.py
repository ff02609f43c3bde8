"""The command as a user calls it: with its own state, in a home made for one test, from a program or a terminal."""

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self

from swarmcg.bot import ExitReport

SWARMCG: Final = str(Path(sys.executable).with_name("swarmcg"))
SOON_S: Final = float(os.environ.get("SWARMCG_TEST_SOON", "90"))
"""Bounds every wait of a test; on a loaded machine it is far from being reached."""


def ignoring(*signals: str) -> list[str]:
    """Words in front of a command for which these signals are ignored from the first."""
    return ["sh", "-c", f"trap '' {' '.join(signals)}; exec \"$@\"", "sh"]


class Command:
    """Calls swarmcg with a home and a state directory of its own."""

    def __init__(self, home: Path, state: Path) -> None:
        self.home: Final = home
        self.state: Final = state
        self.env: Final = {
            **os.environ,
            "SWARMCG_STATE_DIR": str(state / "state"),
            "SWARMCG_CACHE_DIR": str(state / "cache"),
            "SWARMCG_RUNTIME_DIR": str(state / "run"),
        }

    def words(self, verb: str, *words: str) -> list[str]:
        return [SWARMCG, verb, "--home", str(self.home), *words]

    def __call__(self, verb: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        settings: dict[str, Any] = {"env": self.env, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run(
            self.words(verb, *words), check=False, capture_output=True, text=True, timeout=SOON_S, **settings
        )

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        """A shell script, in which $RUN stands for 'swarmcg run' and its flags."""
        env = {**self.env, "RUN": " ".join(self.words("run"))}
        return subprocess.run(
            ["bash", "-c", script], check=False, capture_output=True, text=True, timeout=SOON_S, env=env
        )

    @contextlib.contextmanager
    def running(
        self, verb: str, *words: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> Iterator[subprocess.Popen[str]]:
        """A call that goes on. It is ended by force if the test did not see to its end."""
        process = subprocess.Popen(
            self.words(verb, *words),
            env={**self.env, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for stream in (
                process.stdout,
                process.stderr,
            ):  # not read: what it started may hold the other end
                assert stream is not None
                stream.close()

    def reports(self) -> list[ExitReport]:
        lines = (self.state / "state" / "reports.jsonl").read_bytes().splitlines()
        return [ExitReport.from_json(line) for line in lines]

    def slices(self) -> list[str]:
        return sorted(entry.name for entry in self.home.iterdir() if entry.is_dir())


class Terminal:
    """A program with a terminal of its own, whose session it leads, and a user who types."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str]) -> None:
        self._user, slave = pty.openpty()
        self._seen = ""
        self.program: Final = subprocess.Popen(
            ["setsid", "--ctty", *words], env=env, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.program.kill()
        self.program.wait()

    def type(self, text: str) -> None:
        os.write(self._user, text.encode())

    def expect(self, pattern: str) -> str:
        """Waits until the pattern is on the screen; what was there before it counts as read afterwards."""
        deadline = time.monotonic() + SOON_S
        while (found := re.search(pattern, self._seen)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} is not on the screen: {self._seen!r}"
            assert self._read(left), f"the terminal was closed before {pattern!r}: {self._seen!r}"
        self._seen = self._seen[found.end() :]
        return found[0]

    def _read(self, timeout: float) -> bool:
        """Takes in what is on the screen; False when all who could write there are gone."""
        poll = select.poll()
        poll.register(self._user, select.POLLIN)
        if not poll.poll(max(0, timeout) * 1000):
            return True
        try:
            self._seen += os.read(self._user, 4096).decode(errors="replace")
        except OSError:
            return False
        return True

    def ends(self) -> int:
        """The program's exit status; reads on meanwhile, so that it can write."""
        deadline = time.monotonic() + SOON_S
        while self._read(deadline - time.monotonic()):
            assert time.monotonic() < deadline, f"it does not end: {self._seen!r}"
        return self.program.wait(SOON_S)

    def close(self) -> None:
        """Closes the window."""
        if self._user >= 0:
            os.close(self._user)
            self._user = -1


def line(stream: IO[str] | None) -> str:
    """The next line; the leak check and the runner's time-out bound the wait."""
    assert stream is not None
    return stream.readline().rstrip("\n")
