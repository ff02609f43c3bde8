"""The engine behind a Starter on macOS and Windows: starts commands, and ends them with this process."""

import atexit
import contextlib
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from swarmcg.bot import Row
from swarmcg.elsewhere.bot import TreeBot
from swarmcg.elsewhere.journal import Journal
from swarmcg.elsewhere.limits import refusal, unenforced
from swarmcg.elsewhere.tree import Tree
from swarmcg.elsewhere.walk import Life
from swarmcg.errors import ConfigError, HomeError, StartError, SwarmcgError
from swarmcg.places import places
from swarmcg.supervisor.launch import Launch

__all__ = ["Engine"]


class Engine:
    """Starts commands, each the root of a tree of processes. May be used from any thread.

    No helper process stands behind it as on Linux: the bots are ended by the ladder when it is closed or this
    process exits, but go on when this process is killed. ``enter_home`` means nothing here.
    """

    def __init__(self, home: str | None, *, enter_home: bool) -> None:
        del enter_home
        if home is not None:
            raise HomeError(
                "There are no cgroups on this platform", path=home, remedy="Leave the home out, or use Linux."
            )
        self._lock: Final = threading.Lock()
        self._bots: Final[set[TreeBot]] = set()
        self._closed = False

    def check_open(self, *, detach: bool = False) -> None:
        """Raises ConfigError after :meth:`close`, and HomeError for a bot that is to be detached."""
        if self._closed:
            raise ConfigError("The starter is closed", cause="its bots were ended", remedy="Make a new one.")
        if detach:
            raise HomeError(
                "A bot cannot be detached on this platform",
                cause="the process that would keep it needs Linux",
                remedy="Run it in the foreground.",
            )

    @contextlib.contextmanager
    def admitted(self, launch: Launch) -> Iterator[None]:
        """For what has to be done between the decision that a launch is possible here and its :meth:`start`.

        Raises UnenforceableError, ResourcesError, ConfigError or StateError.
        """
        _checked(launch)
        yield

    def start(
        self,
        launch: Launch,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: str | None,
        stdio: tuple[int, int, int],
    ) -> TreeBot:
        """Starts the command. Returns when its program runs.

        Raises UnenforceableError, ResourcesError, ConfigError, StateError or StartError; nothing is left then.
        """
        rows, journal = _checked(launch)

        def begin() -> TreeBot:
            with self._lock:
                self.check_open()
                life = _born(launch, argv, env, cwd=cwd, stdio=stdio, rows=rows)
                bot = TreeBot(life, journal, self._forget)
                if not self._bots:
                    atexit.register(self.close)
                self._bots.add(bot)
                bot.begin()
            return bot

        return _undisturbed(begin)

    def close(self) -> None:
        """Ends all of its bots by the ladder; blocks for at most their grace periods."""
        with self._lock:
            self._closed = True
            bots = list(self._bots)
        for bot in bots:
            bot.terminate()
        for bot in bots:
            with contextlib.suppress(SwarmcgError):  # what cannot be ended was logged
                bot.terminate_or_kill()

    def _forget(self, bot: TreeBot) -> None:
        with self._lock:
            self._bots.discard(bot)
            if not self._bots:
                atexit.unregister(self.close)


def _undisturbed(work: Callable[[], TreeBot]) -> TreeBot:
    """Does it in a thread of its own, where no handler of a signal can raise in the midst of it."""
    outcome: list[TreeBot | BaseException] = []

    def do() -> None:
        try:
            outcome.append(work())
        except BaseException as e:  # noqa: BLE001  raised again in the caller's thread
            outcome.append(e)

    thread = threading.Thread(target=do, name="start a bot")
    thread.start()
    thread.join()
    (made,) = outcome
    if isinstance(made, BaseException):
        raise made
    return made


def _checked(launch: Launch) -> tuple[tuple[Row, ...], Journal]:
    """What will be reported as not enforced, and where. Raises what forbids a start before it is made."""
    rows = _allowed(launch)
    _check_drain(launch)
    journal = Journal(places().reports)
    journal.check()
    return rows, journal


def _allowed(launch: Launch) -> tuple[Row, ...]:
    """What will be reported as not enforced. Raises UnenforceableError where the policy is to refuse that."""
    rows = unenforced(launch.resources, launch.bandwidth)
    refused = [row for row in rows if row.field not in launch.lenient]
    if refused and launch.on_unenforceable == "refuse":
        raise refusal(refused)
    return rows


def _check_drain(launch: Launch) -> None:
    if sys.platform == "win32" and launch.service and launch.drain == "sigterm":
        raise ConfigError(
            "Windows has no signal to drain a bot by",
            value=launch.drain,
            remedy="Use drain='file', or a command as a list of words.",
        )


def _born(
    launch: Launch,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    cwd: str | None,
    stdio: tuple[int, int, int],
    rows: tuple[Row, ...],
) -> Life:
    try:
        process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            **(_SERVICE if launch.service else _AS_EXEC),
        )
    except (OSError, ValueError) as e:
        raise _not_started(launch.bot_id, argv, cwd, e) from e
    return Life(
        launch=launch,
        env=env,
        process=process,
        tree=Tree(process.pid, _created(process.pid), own_session=launch.service),
        incarnation=secrets.token_hex(8),
        unenforced=rows,
        at=time.time(),
        monotonic=time.monotonic(),
    )


# A session or group of its own, so that a Ctrl-C in our terminal is not the bot's. Where the latter is unknown it is 0.
_SERVICE: Final[Mapping[str, Any]] = {
    "start_new_session": True,
    "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
}
_AS_EXEC: Final[Mapping[str, Any]] = {"close_fds": False}


def _created(pid: int) -> float:
    """When the process was made, by the platform's own clock; one that has ended already is of now."""
    import psutil  # noqa: PLC0415  tens of milliseconds

    with contextlib.suppress(psutil.Error):
        return float(psutil.Process(pid).create_time())
    return time.time()


def _not_started(bot_id: str, argv: Sequence[str], cwd: str | None, e: OSError | ValueError) -> StartError:
    number = e.errno if isinstance(e, OSError) else None
    at_directory = isinstance(e, OSError) and cwd is not None and e.filename == cwd != argv[0]
    return StartError(
        f"Bot {bot_id!r} could not be started",
        step="chdir" if at_directory else "exec",
        path=cwd if at_directory else argv[0],
        errno=number,
        cause=None if number else str(e),
        remedy="See that the directory exists."
        if at_directory
        else "See that it is a program for this host.",
    )
