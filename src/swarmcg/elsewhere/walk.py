"""The ladder of one bot without a slice, and what it does to the processes."""

import contextlib
import datetime as dt
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from swarmcg.bot import ExitReport, Leftovers, Row
from swarmcg.elsewhere.tree import Tree
from swarmcg.errors import StateError, StuckError, SwarmcgError, printable
from swarmcg.ladder import Act, Ladder, Rung
from swarmcg.supervisor.drain import drain_file, make_drain_file
from swarmcg.supervisor.launch import Launch
from swarmcg.verdict import End, reason

__all__ = ["Acts", "Life", "Walk"]

_LOG: Final = logging.getLogger("swarmcg")
_LOOK_S: Final = 0.05
"""Between looks at a tree whose main process has ended: nothing tells when the rest of it has."""
_NAMES: Final = 32
_CRIES: Final = 3
_SIGKILL: Final = 9  # Windows has no name for it

Acts = tuple[Act, ...]


class Life(NamedTuple):
    """One life of a bot: what was started, and when, in seconds since 1970 and of the monotonic clock."""

    launch: Launch
    env: Mapping[str, str]
    process: "subprocess.Popen[bytes]"
    tree: Tree
    incarnation: str
    unenforced: tuple[Row, ...]
    at: float
    monotonic: float


class Walk:
    """For the one thread that walks; ``ladder`` may be asked through :meth:`act` only.

    ``stuck`` is told of processes that survive the kill, ``finish`` of the end, once. ``unenforced`` are the rows
    for the report; whoever holds the bot's lock may put others in their place.
    """

    def __init__(
        self, life: Life, *, stuck: Callable[[StuckError], None], finish: Callable[[ExitReport], None]
    ) -> None:
        self._life: Final = life
        self.unenforced = life.unenforced
        self._tell_stuck: Final = stuck
        self._tell_finish: Final = finish
        self.ladder: Final = Ladder(life.launch.grace, can_kill=True)
        self._cries = 0
        self._status: int | None = None
        self._ended = 0.0
        self._end: End | None = None
        self._left: tuple[int, set[str]] = (0, set())
        self._acts: Final[Mapping[Act, Callable[[], None]]] = {
            Act.THAW: lambda: None,
            Act.FREEZE: lambda: self.act(self.ladder.frozen(time.monotonic())),  # nothing freezes; on without
            Act.DRAIN: self._drain,
            Act.TERMINATE: life.tree.terminate,
            Act.KILL: self._kill,
            Act.KILL_EACH: self._kill,
            Act.CRY: self._cry,
            Act.FINISH: self._finish,
        }

    @property
    def over(self) -> bool:
        """Whether nothing of the bot is left."""
        return self.ladder.rung is Rung.GONE

    def patience(self) -> float | None:
        """For how many seconds nothing need be done; None for as long as nothing happens."""
        due = self.ladder.due
        waits = [] if due is None else [max(0.0, due - time.monotonic())]
        return min(waits + ([] if self._end is None else [_LOOK_S]), default=None)

    def act(self, acts: Acts) -> None:
        """Carries out what the ladder says, in order."""
        for act in acts:
            self._acts[act]()

    def go_on(self) -> None:
        """Does what is due, and looks whether the tree is gone."""
        self.act(self.ladder.tick(time.monotonic()))
        if self._end is None:
            return
        if not self._life.tree.look():
            self.act(self.ladder.empty())
        elif self.ladder.rung in {Rung.KILLED, Rung.STUCK}:
            self._kill()  # who was born in the midst of it

    def main_ended(self, status: int, at: float) -> None:
        """The main process has ended, with a status as subprocess gives it."""
        self._status, self._ended = status, at
        number = -status if status < 0 else None
        killed = number == _SIGKILL or sys.platform == "win32"
        self._end = End(
            started=True,
            observed=True,
            signal=number,
            terminated=self.ladder.terminated,
            grace_over=self.ladder.grace_over and killed,
        )
        self.act(self.ladder.main_ended(time.monotonic()))

    def _drain(self) -> None:
        how = self._life.launch.drain
        try:
            if not isinstance(how, str):
                self._run(list(how))
                return
            path = drain_file(self._life.launch)
            if path is not None:
                make_drain_file(path)
        except SwarmcgError as e:
            _LOG.error("%s", e)  # the deadline, if there is one, goes on to terminate
            return
        if "sigterm" in how and sys.platform != "win32":
            self._life.process.send_signal(signal.SIGTERM)

    def _run(self, argv: list[str]) -> None:
        """Starts a helper that belongs to the bot from then on."""
        import psutil  # noqa: PLC0415  tens of milliseconds

        life = self._life
        none = subprocess.DEVNULL
        cwd = life.launch.work_directory
        try:
            helper = subprocess.Popen(argv, env=dict(life.env), cwd=cwd, stdin=none, stdout=none, stderr=none)
        except OSError as e:
            remedy = "See what drain names."
            raise StateError(
                "The drain command cannot be run", path=argv[0], errno=e.errno, remedy=remedy
            ) from e
        with contextlib.suppress(psutil.Error):
            life.tree.add(helper.pid, psutil.Process(helper.pid).create_time())
        threading.Thread(target=helper.wait, name=f"wait for {argv[0]!r}", daemon=True).start()

    def _kill(self) -> None:
        names = self._life.tree.kill()
        count, known = self._left
        self._left = max(count, len(names)), known | {printable(name) for name in names}

    def _cry(self) -> None:
        self._cries += 1
        who = [f"pid {process.pid}" for process in self._life.tree.look()]
        if who and self._cries <= _CRIES:
            self._tell_stuck(
                StuckError(
                    f"Processes of bot {self._life.launch.bot_id!r} survive the kill",
                    value="; ".join(who[:16]),
                    cause="they wait in the kernel, or belong to somebody else",
                    remedy="See what they wait for, and whose they are.",
                )
            )

    def _finish(self) -> None:
        end, life, status = self._end, self._life, self._status
        assert end is not None  # noqa: S101  the ladder ends after the main process
        assert status is not None  # noqa: S101  the two come together
        why, evidence = reason(end)
        count, names = self._left
        self._tell_finish(
            ExitReport(
                bot_id=life.launch.bot_id,
                incarnation=life.incarnation,
                reason=why,
                reason_evidence=evidence,
                exit_code=status if status >= 0 else None,
                signal=end.signal,
                started_at=_rfc3339(life.at),
                duration_s=round(self._ended - life.monotonic, 6),
                leftovers=Leftovers(count=count, names=tuple(sorted(names)[:_NAMES])),
                unenforced=self.unenforced,
            )
        )


def _rfc3339(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
