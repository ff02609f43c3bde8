"""Starts a Swarming bot: its code is downloaded, its slice made, its process born inside; or nothing is left
of the attempt.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from swarmcg import bot_code, workplace
from swarmcg.bot import Config, StartedBot, default_policy
from swarmcg.errors import ConfigError
from swarmcg.places import places
from swarmcg.resources import LinuxResources
from swarmcg.supervisor.launch import Launch

if sys.platform == "linux":
    from swarmcg.supervisor.engine import Engine
else:
    from swarmcg.elsewhere.engine import Engine

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

__all__ = ["Starter", "bot_environment"]

_PASSED_ON: Final = {
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TZ",
    "TMPDIR",
    "DOCKER_HOST_HOSTNAME",
}
_OF_WINDOWS: Final = {  # without these neither Python nor its sockets start there
    "COMSPEC",
    "PATHEXT",
    "SYSTEMDRIVE",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "USERPROFILE",
    "WINDIR",
}


class Starter:
    """Starts bots of one Swarming server, each in a slice of its own.

    Where the bots unit runs (``swarmcg-bots.service``), it owns the slices; else the first start makes a small
    supervisor process with a keeper, which do. When this process dies, its bots are ended by the stop ladder. May
    be used from any thread, and as a context manager that ends all of its bots.

    On macOS and Windows there are neither slices nor helper processes: a bot is a tree of processes, which is ended
    when the starter is closed or this process exits, but not when it is killed. A ``home`` is refused (HomeError).

    ``opener`` (urllib.request) brings authentication or proxies to the download. ``home`` names the cgroup
    for the slices, else one is found, with systemd a scope for the helper processes;
    ``enter_home`` allows moving this process, too, into a leaf of its own delegated cgroup or of that scope.
    ``cache_directory`` is shared by all bots of the host (None: the user's or the system's
    own).
    """

    def __init__(
        self,
        swarming_url: str,
        *,
        opener: "OpenerDirector | None" = None,
        home: str | os.PathLike[str] | None = None,
        enter_home: bool = False,
        cache_directory: str | os.PathLike[str] | None = None,
        report_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._url: Final = swarming_url
        self._opener: Final = opener
        self._engine: Final = Engine(None if home is None else os.fspath(home), enter_home=enter_home)
        self._cache: Final = os.fspath(cache_directory) if cache_directory is not None else places().cache
        self._report_file: Final = None if report_file is None else os.path.abspath(report_file)

    def start(self, config: Config, *, detach: bool = False) -> StartedBot:
        """Downloads the bot's code and starts it. Returns when its program runs.

        What this host would refuse the start for, limits that it cannot put in force for one, is refused before
        anything is downloaded.

        With ``detach`` the bot outlives this process and this starter's end; it needs the bots unit (HomeError).

        Raises ConfigError (URL, work directory, python, resources of a wrong type), BotCodeError (download),
        HomeError, ResourcesError,
        UnenforceableError, CgroupError, StartError (fork, exec, …), StateError (no place for reports).
        Nothing is left of a failed start.
        """
        self._engine.check_open(detach=detach)
        bot_code.check(self._url, config.bot_id)
        resources = _resources(config)
        work = workplace.checked(config)
        env = bot_environment(config)
        python = _python(os.fspath(config.python_version), env)
        launch = self._launch(config, resources, work, detach=detach)
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._engine.admitted(launch))  # before a download that would be in vain
            # The log is the claim to the directory, so it comes before anything is done there.
            log = undo.enter_context(workplace.log(f"{work}.log"))
            workplace.check_unlocked(work)
            code = bot_code.fetch(self._url, config.bot_id, self._cache, opener=self._opener)
            program = undo.enter_context(_installed(code, work))
            null = undo.enter_context(open(os.devnull, "rb")).fileno()
            _remove_stale(f"{work}.drain")
            argv = [python, program, "start_bot"]
            return self._engine.start(launch, argv, env, cwd=work, stdio=(null, log, log))

    def _launch(self, config: Config, resources: LinuxResources | None, work: str, *, detach: bool) -> Launch:
        return Launch(
            bot_id=config.bot_id,
            resources=resources,
            bandwidth=config.bandwidth,
            on_unenforceable=config.on_unenforceable or default_policy(),
            lenient=config.lenient,
            grace=float(config.grace_interval),
            drain=config.drain,
            work_directory=work,
            report_file=self._report_file,
            detach=detach,
        )

    def close(self) -> None:
        """Ends all bots of this starter by the ladder, then its helper processes; blocks for at most their
        grace periods. Raises nothing.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _resources(config: Config) -> LinuxResources | None:
    if config.resources is None or isinstance(config.resources, LinuxResources):
        return config.resources
    raise ConfigError(
        f"resources is no LinuxResources: {config.resources!r}",
        path="resources",
        remedy="Make them with LinuxResources.from_json(text).",
    )


def bot_environment(config: Config) -> dict[str, str]:
    """The environment of a bot: an allow-list of ours, what the caller adds, and the bot's id.

    Nothing else of ours reaches the bot or its tasks, credentials least of all.
    """
    ours = {name: value for name, value in os.environ.items() if _passed_on(name)}
    return {**ours, **config.env, "SWARMING_BOT_ID": config.bot_id}


def _passed_on(name: str) -> bool:
    if sys.platform == "win32" and name in _OF_WINDOWS:
        return True
    return name in _PASSED_ON or name.startswith(("LC_", "SSL_CERT_")) or name.lower().endswith("_proxy")


def _python(wanted: str, env: Mapping[str, str]) -> str:
    """The interpreter as the bot's own PATH finds it."""
    found = shutil.which(wanted, path=env.get("PATH", os.defpath))
    if found is None:
        raise ConfigError(
            f"There is no {wanted!r} to run the bot with",
            path=wanted,
            cause=f"it is not an executable file, nor is one of that name in PATH ({env.get('PATH', os.defpath)})",
            remedy="Install it, or name another one (--python, python_version).",
        )
    return os.path.abspath(found)


@contextlib.contextmanager
def _installed(code: str, work: str) -> Iterator[str]:
    """The bot's zip in its work directory; taken away again when the start fails, unless one was there
    before.
    """
    path = os.path.join(work, "swarming_bot.zip")
    before = os.path.lexists(path)
    bot_code.install(code, work)
    try:
        yield path
    except BaseException:
        if not before:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


def _remove_stale(path: str) -> None:
    """A drain file of an earlier life would end the new bot at once."""
    with contextlib.suppress(OSError):
        os.unlink(path)
