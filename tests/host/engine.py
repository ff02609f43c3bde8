"""The engine as a library drives it: a supervisor process with a keeper, and bots in a home made for one test."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import psutil

from swarmcg.bot import ExitReport
from swarmcg.cgroup.find import find_home
from swarmcg.errors import SwarmcgError
from swarmcg.journal import Journal
from swarmcg.supervisor.client import Connection
from swarmcg.supervisor.incarnation import Incarnation
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervised import SupervisedBot
from swarmcg.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from swarmcg.cgroup.home import Home

T = TypeVar("T")

SOON_S: Final = float(os.environ.get("SWARMCG_TEST_SOON", "90"))
"""Bounds every wait of a test; on a loaded machine it is far from being reached."""

BOTS: Final = Path(__file__).parent / "bots"
ENV: Final = {"PATH": os.environ.get("PATH", os.defpath)}


class Engine:
    """One connection, its journal, and its home. Ends its bots at once when the test ends."""

    def __init__(self, home: str | os.PathLike[str], state: Path) -> None:
        self.home: Final[Home] = find_home(os.fspath(home))
        self.journal: Final = state / "reports.jsonl"
        self.connection: Final = Connection(self.home, str(self.journal))
        self._bots: Final[list[SupervisedBot]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bot in self._bots:
            with contextlib.suppress(SwarmcgError):
                bot.terminate(0)
                bot.wait(SOON_S)
        self.connection.close(SOON_S)

    def start(
        self,
        *argv: str,
        bot_id: str = "bot",
        ready: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = "/",
        **launch: Any,
    ) -> SupervisedBot:
        """Starts a command; with ``ready``, returns when it has written its first line."""
        launched = Launch(bot_id=bot_id, **launch)
        with said() as (hear, tell), open(os.devnull, "rb") as null:
            self.connection.reserve()
            bot = self.connection.start(
                launched, argv, ENV if env is None else env, cwd=cwd, stdio=(null.fileno(), tell, 2)
            )
            self._bots.append(bot)
            if ready:
                read_line(hear)
        return bot

    def sh(self, script: str, **launch: Any) -> SupervisedBot:
        """Starts a shell script that says a line when it is ready."""
        return self.start("/bin/sh", "-c", script, ready=True, **launch)

    def reports(self) -> list[ExitReport]:
        return reports(self.journal)

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(self.connection._process.pid)

    @property
    def keeper(self) -> psutil.Process:
        def born() -> psutil.Process | None:
            for child in self.supervisor.children():
                with contextlib.suppress(psutil.Error):
                    if "keeper" in " ".join(child.cmdline()):
                        return child
            return None

        return until(born)


class Driver:
    """A supervisor in the test's own process: what a listener is told, and turns until something holds."""

    def __init__(self, home: str | os.PathLike[str], state: Path, *, in_process: bool = False) -> None:
        self.journal: Final = state / "reports.jsonl"
        self.supervisor: Final = Supervisor(
            find_home(os.fspath(home)), Journal(str(self.journal)), in_process=in_process
        )
        self.began: Final[list[Incarnation]] = []
        self.failures: Final[list[SwarmcgError]] = []
        self.ends: Final[list[tuple[ExitReport, SwarmcgError | None]]] = []
        self.cries: Final[list[SwarmcgError]] = []

    def started(self, bot: Incarnation) -> None:
        self.began.append(bot)

    def failed(self, bot: Incarnation, error: SwarmcgError) -> None:
        del bot
        self.failures.append(error)

    def ended(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError | None) -> None:
        del bot
        self.ends.append((report, trouble))

    def stuck(self, bot: Incarnation, error: SwarmcgError) -> None:
        del bot
        self.cries.append(error)

    def turn_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + SOON_S
        while not condition():
            assert time.monotonic() < end
            self.supervisor.turn(0.1)


@contextlib.contextmanager
def said() -> Iterator[tuple[int, int]]:
    """A pipe, for a bot to say something."""
    hear, tell = os.pipe()
    try:
        yield hear, tell
    finally:
        os.close(hear)
        os.close(tell)


def read_line(fd: int) -> str:
    line = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not line.endswith(b"\n"):
        assert poll.poll(SOON_S * 1000), f"said nothing but {line!r}"
        chunk = os.read(fd, 1)
        assert chunk, f"ended after {line!r}"
        line += chunk
    return line.decode(errors="replace").strip()


def until(condition: Callable[[], T | None]) -> T:
    """What the condition gives when it is true at last: for what the kernel has no event for, as a removed cgroup."""
    end = time.monotonic() + SOON_S
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def reports(journal: Path) -> list[ExitReport]:
    return (
        [ExitReport.from_json(line) for line in journal.read_bytes().splitlines()] if journal.exists() else []
    )


def reported(journal: Path) -> Counter[str]:
    """How often each incarnation was reported."""
    return Counter(report.incarnation for report in reports(journal))


def compiled(name: str, directory: Path) -> str | None:
    """A C program of ours, or None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    program = directory / name
    if not program.exists():
        subprocess.run([compiler, "-O1", "-pthread", "-o", program, BOTS / f"{name}.c"], check=True)
    return str(program)


def marked(mark: str) -> dict[int, str]:
    """Every process on this host that has the mark in its environment, with its place in cgroup2."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                where = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
                found[int(pid)] = next(line[3:] for line in where if line.startswith("0::"))
    return found


def in_slice(where: str, bot_slice: str) -> bool:
    return f"/{os.path.basename(bot_slice)}/" in f"{where}/"


def slices(home: str | os.PathLike[str]) -> list[str]:
    return sorted(entry.name for entry in os.scandir(home) if entry.is_dir())


def facts(text: str | bytes) -> dict[str, Any]:
    """The one JSON object that a helper process printed."""
    found: dict[str, Any] = json.loads(text)
    return found
