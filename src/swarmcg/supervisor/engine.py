"""Linux's engine behind a Starter: the bots unit where that runs, else one supervisor process at a time."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from swarmcg.cgroup.find import find_home, needs_scope
from swarmcg.errors import ConfigError
from swarmcg.places import places
from swarmcg.supervisor.client import Connection, Connections, UnitConnection
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervised import SupervisedBot
from swarmcg.supervisor.unit import find_unit, no_unit, reach

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Engine"]

_RELEASE_S: Final = 10.0


class Engine:
    """Starts commands in slices. Makes its supervisor with the first start, and may be used from any thread."""

    def __init__(self, home: str | None, *, enter_home: bool) -> None:
        self._home: Final = home
        self._enter_home: Final = enter_home
        self._lock: Final = threading.Lock()
        self._connection: Connections | None = None
        self._closed = False

    def check_open(self, *, detach: bool = False) -> None:
        """Raises ConfigError after :meth:`close`, and HomeError where nothing can be detached and that is wanted."""
        if self._closed:
            raise ConfigError("The starter is closed", cause="its bots were ended", remedy="Make a new one.")
        if detach and (self._home is not None or find_unit() is None):
            raise no_unit()

    @contextlib.contextmanager
    def admitted(self, launch: Launch) -> Iterator[None]:
        """For what has to be done between the decision that a launch is possible here and its :meth:`start`.

        Raises HomeError, and what :meth:`Connections.check` raises. When what is done fails, no process stays for it.
        """
        connection = self._connected(detach=launch.detach)
        try:
            connection.check(launch)
            yield
        except BaseException:
            self._release(connection)
            raise

    def start(
        self,
        launch: Launch,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: str | None,
        stdio: tuple[int, int, int],
    ) -> SupervisedBot:
        """Starts the command; see :meth:`Connection.start`. Raises HomeError, too, and ConfigError after close."""
        connection = self._connected(detach=launch.detach)
        try:
            return connection.start(launch, argv, env, cwd=cwd, stdio=stdio)
        except BaseException:
            self._release(connection)
            raise

    def _connected(self, *, detach: bool) -> Connections:
        with self._lock:
            self.check_open()
            current = self._connection
            serves = current is not None and current.alive
            if current is not None and serves and (not detach or isinstance(current, UnitConnection)):
                return current.reserve()
            made = self._connect()
            if detach and not isinstance(made, UnitConnection):
                made.close(_RELEASE_S)
                raise no_unit()
            if not serves:  # else bots live by the current one
                if current is not None:
                    current.close(_RELEASE_S)
                self._connection = made
            return made.reserve()

    def _connect(self) -> Connections:
        wire = None if self._home is not None else reach()
        if wire is not None:
            return UnitConnection(wire)
        # A scope is the supervisor's own: this process stays where it is unless the caller said otherwise.
        apart = not self._enter_home and needs_scope(self._home)
        home = None if apart else find_home(self._home, enter=self._enter_home)
        return Connection(home, places().reports)

    def _release(self, connection: Connections) -> None:
        """After a failed start: no process stays for the sake of bots that there are none of."""
        with self._lock:
            if connection.idle:
                connection.close(_RELEASE_S)
                if self._connection is connection:  # else another start has put a new one in its place
                    self._connection = None

    def close(self) -> None:
        """Ends all of its bots by the ladder, and then the supervisor."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
