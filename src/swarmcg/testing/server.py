"""A Swarming server on loopback, for tests and for trying things out.

As a command, ``python -m swarmcg.testing.server`` serves (see :mod:`swarmcg.testing.command`).
"""

import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

from swarmcg.testing.board import Board, terminate_order
from swarmcg.testing.control import PREFIX as CONTROL, answer_control
from swarmcg.testing.faults import Fault, Reply, Wire
from swarmcg.testing.hooks import NO_CIPD
from swarmcg.testing.listener import Listener, Request
from swarmcg.testing.package import small_bot_version, small_bot_zip
from swarmcg.testing.tasks import Event, KnownBot, Task

__all__ = ["SwarmingServer"]

_API: Final = "/swarming/api/v1/bot/"
_BOT_ID_HEADER: Final = "X-Luci-Swarming-Bot-ID"
_NO_TOKEN: Final = {"service_account": "none", "expiry": 0}
_ZIP_HEADERS: Final = {"Content-Type": "application/octet-stream", "Cache-Control": "public, max-age=3600"}
_UNKNOWN: Final = "unknown_call"


class SwarmingServer:
    """An embedded Swarming server, on 127.0.0.1 unless told otherwise, with the calls of the bot API that a
    stock bot needs to run tasks.

    Used as a context manager: it serves inside, and afterwards no thread and no socket is left. By default it
    serves the small bot of this package; ``bot_zip`` and ``version`` name another one, which must have been
    packed for ``url``, so for one of those ``port`` is usually fixed. ``sleep`` is what an idle bot is told
    to sleep, in seconds. ``bot_config`` is the source of the hooks that bots get; by default such as let a
    stock bot run tasks without CIPD and CAS.

    A test gives work with ``give_task`` and looks at ``events``, ``requests`` and the tasks; ``fail`` has
    chosen calls go wrong. A POST that the server does not know is answered ``{}`` and noted as the event
    ``unknown_call``. All methods may be called from any thread.
    """

    def __init__(
        self,
        bot_zip: bytes | None = None,
        version: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        sleep: float = 0.1,
        bot_config: str = NO_CIPD,
    ) -> None:
        self._http: Final = Listener((host, port), self._answer)
        self.url: Final = f"http://{host}:{self._http.server_address[1]}"
        live = version or small_bot_version(self.url)
        self._zips: Final = {live: small_bot_zip(self.url) if bot_zip is None else bot_zip}
        self.requests: Final[list[tuple[str, str]]] = []
        self._board: Final = Board(self.url, live, sleep, bot_config)
        self._faults: Final[dict[str, list[Fault]]] = {}
        self._forbidden: Final[set[str]] = set()
        self._thread: Final = threading.Thread(target=self._http.serve, name="swarming-server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.end(self._thread)

    @property
    def version(self) -> str:
        """The live version: what a bot must report, or be told to update."""
        return self._board.version

    @property
    def versions(self) -> list[str]:
        """All versions that are kept, the live one among them."""
        with self._board.changed:
            return list(self._zips)

    @property
    def zip(self) -> bytes:
        """The package of the live version."""
        with self._board.changed:
            return self._zips[self._board.version]

    @zip.setter  # noqa: A003  zip means the property here
    def zip(self, packed: bytes) -> None:
        with self._board.changed:
            self._zips[self._board.version] = packed

    @property
    def events(self) -> list[Event]:
        """Everything that happened so far, oldest first."""
        with self._board.changed:
            return list(self._board.events)

    @property
    def tasks(self) -> list[Task]:
        """All tasks, oldest first."""
        with self._board.changed:
            return list(self._board.tasks.values())

    @property
    def bots(self) -> list[KnownBot]:
        """Every bot that ever came, as it was last seen."""
        with self._board.changed:
            return list(self._board.bots.values())

    def give_task(self, command: Sequence[str], *, bot_id: str | None = None, **manifest: Any) -> Task:
        """Queues a command for this bot, or the first that asks. ``manifest`` replaces fields of the
        manifest.
        """
        return self._board.add(command, bot_id, manifest)

    def cancel(self, task: Task) -> bool:
        """Cancels a task: one that runs is stopped by its bot at the next update. False for one that has ended."""
        return self._board.cancel(task)

    def terminate(self, bot_id: str) -> None:
        """Tells the bot at its next poll to end."""
        self._board.order(bot_id, terminate_order())

    def restart(self, bot_id: str, message: str = "restart") -> None:
        """Tells the bot at its next poll to restart itself."""
        self._board.order(bot_id, {"cmd": "bot_restart", "message": message})

    def reboot(self, bot_id: str, message: str = "reboot") -> None:
        """Tells the bot at its next poll to reboot its host. A stock bot with the right to do so will."""
        self._board.order(bot_id, {"cmd": "host_reboot", "message": message})

    def keep(self, bot_zip: bytes, version: str) -> None:
        """Keeps another package, that :meth:`publish` can make the live one."""
        with self._board.changed:
            self._zips[version] = bot_zip

    def publish(self, bot_zip: bytes | None, version: str) -> None:
        """Makes another package the live one; bots of any other version are told to update. None for a
        package that is kept already; raises KeyError when it is not.
        """
        with self._board.changed:
            self._zips[version] = self._zips[version] if bot_zip is None else bot_zip
            self._board.version = version

    def configure(self, bot_config: str) -> None:
        """The source of hooks that bots get with the next handshake."""
        self._board.bot_config = bot_config

    def forbid(self, bot_id: str) -> None:
        """Answers 403 when the code is asked for this bot."""
        self._forbidden.add(bot_id)

    def fail(self, call: str, fault: Fault, times: int = 1) -> None:
        """Puts a fault (see :mod:`swarmcg.testing.faults`) in the place of the next answers to a call.

        ``call`` is the first part of the path below the API: ``bot_code``, ``poll``, ``event``, …; with a
        slash behind it when more follows, as in ``bot_code/`` for the zip itself and ``task_update/``. A POST
        that fails has no effect.
        """
        with self._board.changed:
            self._faults.setdefault(call, []).extend([fault] * times)

    def wait_for_event(self, name: str, bot_id: str | None = None, timeout: float = 60.0) -> Event:
        """The first event of this name, of one bot or any. Raises TimeoutError after ``timeout`` seconds."""
        return self._board.wait_for_event(name, bot_id, timeout)

    def events_from(self, start: int) -> list[Event]:
        """The events from this index on, waiting half a second for the first of them."""
        return self._board.events_from(start)

    def downloads(self) -> int:
        """How often the zip itself was asked for."""
        return sum(path.startswith(f"{_API}bot_code/") for _, path in self.requests)

    def _answer(self, request: Request, wire: Wire) -> bool:
        self.requests.append((request.method, request.target))
        path = request.target.partition("?")[0]
        with self._board.changed:
            faults = self._faults.get(_call(path))
            fault = faults.pop(0) if faults else None
        if fault is None:
            return wire.send(self._reply(request).encode(keep=wire.keep)) and wire.keep
        fault(self._get(request) if request.method == "GET" else _json({}), wire)
        return False

    def _reply(self, request: Request) -> Reply:
        if request.target.startswith(CONTROL):
            return answer_control(self, request)
        if request.method == "GET":
            return self._get(request)
        try:
            posted = {
                "id": request.headers.get(_BOT_ID_HEADER, "unknown"),
                **json.loads(request.body or b"{}"),
            }
            return _json(self._post(request.target.partition("?")[0], posted))
        except (LookupError, TypeError, ValueError) as e:
            return Reply(400, f"{type(e).__name__}: {e}\n".encode())

    def _get(self, request: Request) -> Reply:
        path = request.target.partition("?")[0]
        if path in {"/bot_code", f"{_API}bot_code"} or path.startswith(f"{_API}bot_code/"):
            return self._bot_code(request)
        if path == f"{_API}server_ping":
            return Reply(200, b"Server Up")
        if path == "/auth/api/v1/server/oauth_config":
            return _json({"client_id": "none", "client_not_so_secret": "none", "primary_url": self.url})
        return Reply(404, b'{"error": "not found"}\n', {"Content-Type": "application/json"})

    def _bot_code(self, request: Request) -> Reply:
        """The zip at the address of a kept version, without a query; from anywhere else a redirect to the
        live one.
        """
        path, _, query = request.target.partition("?")
        asked = urllib.parse.parse_qs(query).get("bot_id", [request.headers.get(_BOT_ID_HEADER, "")])[0]
        if asked in self._forbidden:
            return Reply(403, b"this bot may not have the code\n", {"Content-Type": "text/plain"})
        version = path.removeprefix(f"{_API}bot_code/")
        with self._board.changed:
            found = None if query else self._zips.get(version)
            live = self._board.version
        if found is not None:
            return Reply(200, found, _ZIP_HEADERS)
        return Reply(302, headers={"Location": f"{_API}bot_code/{live}"})

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        name, _, rest = path.removeprefix(_API).partition("/")
        plain: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "handshake": self._board.handshake,
            "poll": self._board.poll,
            "event": self._board.event,
            "oauth_token": lambda _: {**_NO_TOKEN, "access_token": None},
            "id_token": lambda _: {**_NO_TOKEN, "id_token": None},
        }
        of_a_task = {"task_update": self._board.task_update, "task_error": self._board.task_error}
        if path.startswith(_API) and name in plain:
            return plain[name](body)
        if path.startswith(_API) and name in of_a_task:
            return of_a_task[name](rest or str(body["task_id"]), body)
        self._board.note(str(body["id"]), _UNKNOWN, path)
        return {}


def _json(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})


def _call(path: str) -> str:
    """``bot_code``, or ``bot_code/`` when something follows."""
    found = re.match(r"[^/]*/?", path.removeprefix(_API).removeprefix("/"))
    return found.group() if found else ""


if __name__ == "__main__":
    from swarmcg.testing.command import main

    raise SystemExit(main())
