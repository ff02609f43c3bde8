"""A Swarming server on loopback, for tests and for trying things out.

As a command, ``python -m swarmcg.testing.server --task 'echo hello'`` prints its URL and then what happens.
"""

import argparse
import contextlib
import http.server
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

from swarmcg.testing.faults import Fault, Reply, Wire
from swarmcg.testing.package import small_bot_version, small_bot_zip
from swarmcg.testing.tasks import Board, Event, Task, terminate_order

__all__ = ["SwarmingServer", "main"]

_API: Final = "/swarming/api/v1/bot/"
_NO_TOKEN: Final = {"service_account": "none", "expiry": 0}
_ZIP_HEADERS: Final = {"Content-Type": "application/octet-stream", "Cache-Control": "public, max-age=3600"}
_MOST_BODY: Final = 128 << 20


class SwarmingServer:
    """An embedded Swarming server on 127.0.0.1, with the calls of the bot API that a bot needs to run tasks.

    Used as a context manager: it serves inside, and afterwards no thread and no socket is left. By default it
    serves the small bot of this package; ``bot_zip`` and ``version`` name another one, which must have been
    packed for ``url``, so for one of those ``port`` is usually fixed. ``sleep`` is what an idle bot is told
    to sleep, in seconds.

    A test gives work with ``give_task`` and looks at ``events``, ``requests`` and the tasks; ``fail`` has
    chosen calls go wrong. All methods may be called from any thread.
    """

    def __init__(
        self, bot_zip: bytes | None = None, version: str | None = None, *, port: int = 0, sleep: float = 0.1
    ) -> None:
        self._http: Final = _Http(("127.0.0.1", port), _Handler)
        self._http.swarming = self
        self.url: Final = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.zip: bytes = small_bot_zip(self.url) if bot_zip is None else bot_zip
        self.requests: Final[list[tuple[str, str]]] = []
        self._board: Final = Board(self.url, version or small_bot_version(self.url), sleep)
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
    def events(self) -> list[Event]:
        """Everything that happened so far, oldest first."""
        with self._board.changed:
            return list(self._board.events)

    def give_task(self, command: Sequence[str], *, bot_id: str | None = None, **manifest: Any) -> Task:
        """Queues a command for this bot, or the first that asks. ``manifest`` replaces fields of the
        manifest.
        """
        return self._board.add(command, bot_id, manifest)

    def cancel(self, task: Task) -> None:
        """Cancels a task: one that runs is stopped by its bot at the next update."""
        self._board.cancel(task)

    def terminate(self, bot_id: str) -> None:
        """Tells the bot at its next poll to end."""
        self._board.order(bot_id, terminate_order())

    def restart(self, bot_id: str, message: str = "restart") -> None:
        """Tells the bot at its next poll to restart its host, as far as it does that."""
        self._board.order(bot_id, {"cmd": "bot_restart", "message": message})

    def publish(self, bot_zip: bytes, version: str) -> None:
        """Makes another package the live one; bots of any other version are told to update."""
        with self._board.changed:
            self.zip, self._board.version = bot_zip, version

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

    def _answer(self, method: str, target: str, body: bytes, wire: Wire) -> None:
        self.requests.append((method, target))
        path, _, query = target.partition("?")
        with self._board.changed:
            faults = self._faults.get(_call(path))
            fault = faults.pop(0) if faults else None
        if fault is None:
            wire.send(self._reply(method, path, query, body).encode())
        else:
            fault(self._get(path, query) if method == "GET" else _json({}), wire)

    def _reply(self, method: str, path: str, query: str, body: bytes) -> Reply:
        if method == "GET":
            return self._get(path, query)
        try:
            posted = json.loads(body)
            name, _, rest = path.removeprefix(_API).partition("/")
            return _json(self._post(name, rest, posted))
        except (LookupError, TypeError, ValueError) as e:
            return Reply(400, f"{type(e).__name__}: {e}\n".encode())

    def _get(self, path: str, query: str) -> Reply:
        if path in {"/bot_code", f"{_API}bot_code"} or path.startswith(f"{_API}bot_code/"):
            return self._bot_code(path, query)
        if path == f"{_API}server_ping":
            return Reply(200, b"Server Up")
        if path == "/auth/api/v1/server/oauth_config":
            return _json({"client_id": "none", "client_not_so_secret": "none", "primary_url": self.url})
        return Reply(404, b"not found\n")

    def _bot_code(self, path: str, query: str) -> Reply:
        """The zip at the live version's address, without a query; from anywhere else a redirect to there."""
        live = f"{_API}bot_code/{self.version}"
        if path == live and not query:
            return Reply(200, self.zip, _ZIP_HEADERS)
        asked = urllib.parse.parse_qs(query).get("bot_id", [""])[0]
        if asked in self._forbidden:
            return Reply(403, b"this bot may not have the code\n")
        return Reply(302, headers={"Location": live})

    def _post(self, name: str, rest: str, body: Mapping[str, Any]) -> dict[str, Any]:
        plain: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "handshake": self._board.handshake,
            "poll": self._board.poll,
            "event": self._board.event,
            "oauth_token": lambda _: {**_NO_TOKEN, "access_token": None},
            "id_token": lambda _: {**_NO_TOKEN, "id_token": None},
        }
        if name in plain:
            return plain[name](body)
        of_a_task = {"task_update": self._board.task_update, "task_error": self._board.task_error}
        return of_a_task[name](rest or str(body["task_id"]), body)


def _json(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})


def _call(path: str) -> str:
    """``bot_code``, or ``bot_code/`` when something follows."""
    found = re.match(r"[^/]*/?", path.removeprefix(_API).removeprefix("/"))
    return found.group() if found else ""


class _Http(http.server.ThreadingHTTPServer):
    """Serves until it is ended, without looking up every now and then, and knows its open connections."""

    daemon_threads = False  # so that closing joins them
    request_queue_size = 128  # with the 5 of socketserver, many bots at once wait a second for a second SYN
    swarming: SwarmingServer

    def __init__(self, address: tuple[str, int], handler: type["_Handler"]) -> None:
        self.closing: Final = threading.Event()
        self._open: Final[set[socket.socket]] = set()
        self._open_lock: Final = threading.Lock()
        super().__init__(address, handler)

    def serve(self) -> None:
        while not self.closing.is_set():
            self.handle_request()

    def end(self, serving: threading.Thread) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):  # wakes the loop; refused when it has ended already
            socket.create_connection(self.socket.getsockname(), timeout=1).close()
        serving.join()
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Http

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MOST_BODY:
            self.send_error(413)
            return
        body = self.rfile.read(length)
        self.server.swarming._answer(  # noqa: SLF001  its own server
            self.command, self.path, body, Wire(self.connection, self.server.closing)
        )

    do_GET = do_POST = _serve  # noqa: N815  so http.server finds them

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            super().handle()

    def log_message(self, *_: object) -> None:
        """Not on stderr: ``requests`` has it all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m swarmcg.testing.server``: serves until Ctrl-C, or with --then-terminate until the bot has
    left.
    """
    parser = argparse.ArgumentParser(prog="python -m swarmcg.testing.server", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes any that is free")
    parser.add_argument(
        "--task", action="append", default=[], metavar="COMMAND", help="a shell command for the bot"
    )
    parser.add_argument("--then-terminate", action="store_true", help="end the bot once the tasks are done")
    options = parser.parse_args(arguments)
    try:
        made = SwarmingServer(port=options.port)
    except (OSError, OverflowError) as e:
        parser.error(f"port {options.port} cannot be used: {e}")
    with made as server, contextlib.suppress(KeyboardInterrupt):
        print(server.url, flush=True)
        tasks = [server.give_task(["/bin/sh", "-c", command]) for command in options.task]
        _tell(server, tasks, then_terminate=options.then_terminate)
    return 0


def _tell(server: SwarmingServer, tasks: Sequence[Task], *, then_terminate: bool) -> None:
    """Prints what happens, for ever or until the bot that did the tasks has left."""
    told = 0
    pending = list(tasks)
    terminated = False
    while True:
        for event in server.events_from(told):
            told += 1
            print(f"{event.bot_id}: {event.event} {event.message}".rstrip(), flush=True)
            if event.event == "bot_shutdown" and terminated:
                return
        for task in [task for task in pending if task.ended]:
            pending.remove(task)
            print(task.output.decode(errors="replace"), end="", flush=True)
        if then_terminate and not terminated and not pending and told:
            server.terminate(server.events[0].bot_id)
            terminated = True


if __name__ == "__main__":
    raise SystemExit(main())
