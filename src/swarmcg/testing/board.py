"""What a Swarming server knows of bots and tasks, and what it answers: the API without HTTP."""

import base64
import binascii
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from swarmcg.testing.tasks import Event, KnownBot, Task, TaskState

__all__ = ["Board", "terminate_order"]

_MOST_OUTPUT: Final = 64 << 20
_ORDER: Final = "f"
"""Ids of orders that look like tasks (terminate) begin with it."""


class Board:
    """All tasks, bots, events and orders. Each method that a bot calls takes the body that it posted; what
    is missing there is taken for unknown, and what is there besides is not looked at.
    """

    def __init__(self, url: str, version: str, sleep: float, bot_config: str) -> None:
        self.version = version
        self.bot_config = bot_config
        self.events: Final[list[Event]] = []
        self.tasks: Final[dict[str, Task]] = {}
        self.bots: Final[dict[str, KnownBot]] = {}
        self.changed: Final = threading.Condition()
        self._url: Final = url
        self._sleep: Final = sleep
        self._orders: Final[dict[str, list[dict[str, Any]]]] = {}

    def add(self, command: Sequence[str], bot_id: str | None, facts: Mapping[str, Any]) -> Task:
        """A task for this bot, or for whichever asks first."""
        with self.changed:
            task = Task(len(self.tasks) + 1, command, facts, self.changed)
            task.bot_id = bot_id
            self.tasks[task.id] = task
        return task

    def cancel(self, task: Task) -> bool:
        """A task that has not begun never will; one that runs is to be stopped by its bot. False for one that ended."""
        with self.changed:
            if task.state not in {"PENDING", "RUNNING"}:
                return False
            task.must_stop = True
            if task.state == "PENDING":
                task.state = "CANCELED"
            self.changed.notify_all()
        return True

    def order(self, bot_id: str, answer: dict[str, Any]) -> None:
        """Answers the bot's next poll with this."""
        with self.changed:
            self._orders.setdefault(bot_id, []).append(answer)

    def wait_for_event(self, name: str, bot_id: str | None, timeout: float) -> Event:
        """The first such event, of this bot or any. Raises TimeoutError."""
        with self.changed:
            self.changed.wait_for(lambda: self._find(name, bot_id) is not None, timeout)
            found = self._find(name, bot_id)
        if found is None:
            raise TimeoutError(f"no {name} of {bot_id or 'any bot'} within {timeout} s")
        return found

    def events_from(self, start: int, timeout: float = 0.5) -> list[Event]:
        """The events from that index on, as soon as there is one; none after the time-out."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.events) > start, timeout)
            return self.events[start:]

    def note(self, bot_id: str, event: str, message: str = "") -> None:
        """Something happened."""
        with self.changed:
            self.events.append(Event(bot_id, event, message))
            self.changed.notify_all()

    def handshake(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot begins. Raises LookupError and TypeError when it does not say who it is."""
        bot_id = _required_id(body)
        with self.changed:
            self._abandon(bot_id)
            self._saw(bot_id, "idle", str(body.get("version", "")))
        self.note(bot_id, "bot_connected")
        return {
            "bot_version": self.version,
            "server_version": "1",
            "bot_group_cfg_version": "1",
            "bot_group_cfg": {"dimensions": {"pool": ["default"]}},
            "bot_config": self.bot_config,
            "bot_config_rev": "1",
            "bot_config_name": "bot_config.py",
            "session": f"session-{bot_id}",
        }

    def poll(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot asks what to do. Raises LookupError and TypeError when it does not say who it is.

        A bot that asks while the server thinks it has a task has lost that task; unless it is the same poll,
        asked again because the answer did not arrive.
        """
        bot_id, request = _required_id(body), body.get("request_uuid")
        with self.changed:
            self._saw(bot_id, "idle", str(body.get("version", "")))
            for task in self._running(bot_id):
                if request is not None and task.request == request:
                    return self._hand_out(task, bot_id)
            self._abandon(bot_id)
            if body.get("version", self.version) != self.version:
                return {"cmd": "update", "version": self.version}
            orders = self._orders.get(bot_id)
            if orders:
                return orders.pop(0)
            for task in self.tasks.values():
                if task.state == "PENDING" and task.bot_id in {None, bot_id}:
                    task.request = request
                    self.events.append(Event(bot_id, "run", task.id))
                    return self._hand_out(task, bot_id)
        return {"cmd": "sleep", "duration": self._sleep}

    def event(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot tells something; with ``bot_shutdown`` it leaves, and a task that it still ran died with
        it.
        """
        bot_id, name = _bot_id(body), str(body.get("event", ""))
        if name == "bot_shutdown":
            with self.changed:
                self._abandon(bot_id)
                self._saw(bot_id, "left", str(body.get("version", "")))
        self.note(bot_id, name, str(body.get("message", "")))
        return {}

    def task_update(self, task_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot tells how far its task is. Raises LookupError and ValueError for what cannot be."""
        if task_id.startswith(_ORDER):
            return {"ok": True, "must_stop": False}
        with self.changed:
            task = self.tasks[task_id]
            self._take_output(task, body)
            ends = task.state == "RUNNING" and body.get("exit_code") is not None
            if ends:
                task.exit_code = int(body["exit_code"])
                task.state = _final_state(task, body)
                self._saw(task.bot_id or "unknown", "idle")
            self.changed.notify_all()
        if ends:
            message = f"{task.id} {task.state} exit code {task.exit_code}"
            self.note(task.bot_id or "unknown", "task_completed", message)
        return {"ok": True, "must_stop": task.must_stop}

    def task_error(self, task_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot could not run its task, or had to abort it. One that has ended stays as it ended."""
        with self.changed:
            task = self.tasks[task_id]
            task.error = str(body.get("message", ""))
            if not task.ended:
                task.state = "BOT_DIED"
        self.note(task.bot_id or _bot_id(body), "task_error", f"{task.id} {task.error}")
        return {"resp": 1}

    def _running(self, bot_id: str) -> Iterator[Task]:
        return (t for t in self.tasks.values() if t.state == "RUNNING" and t.bot_id == bot_id)

    def _abandon(self, bot_id: str) -> None:
        for task in self._running(bot_id):
            task.state = "BOT_DIED"
        self.changed.notify_all()

    def _saw(self, bot_id: str, state: str, version: str = "") -> None:
        known = self.bots.get(bot_id)
        self.bots[bot_id] = KnownBot(bot_id, version or (known.version if known else ""), state, time.time())

    def _take_output(self, task: Task, body: Mapping[str, Any]) -> None:
        try:
            chunk = base64.b64decode(body.get("output") or "", validate=True)
        except binascii.Error as e:
            raise ValueError(f"the output is not base64: {e}") from e
        start = int(body.get("output_chunk_start") or 0)
        if not 0 <= start <= _MOST_OUTPUT - len(chunk):
            raise ValueError("the output is too long")
        kept = task.output[:start].ljust(start, b"\0")
        task.output = kept + chunk + task.output[start + len(chunk) :]

    def _hand_out(self, task: Task, bot_id: str) -> dict[str, Any]:
        task.state, task.bot_id = "RUNNING", bot_id
        self._saw(bot_id, f"running {task.id}")
        self.changed.notify_all()
        return {"cmd": "run", "manifest": self._manifest(task, bot_id) | task.facts}

    def _manifest(self, task: Task, bot_id: str) -> dict[str, Any]:
        """Exactly the fields that the stock bot expects: it refuses a manifest with others."""
        none = {"service_account": "none"}
        dimensions = {"id": bot_id, "pool": "default"}
        return {
            "bot_id": bot_id,
            "bot_authenticated_as": f"bot:{bot_id}",
            "bot_dimensions": {name: [value] for name, value in dimensions.items()},
            "caches": [],
            "cas_input_root": None,
            "cipd_input": None,
            "command": task.command,
            "dimensions": dimensions,
            "env": {},
            "env_prefixes": {},
            "grace_period": 30,
            "hard_timeout": 3600,
            "host": self._url,
            "io_timeout": 1200,
            "outputs": [],
            "realm": {"name": None},
            "relative_cwd": None,
            "resultdb": None,
            "secret_bytes": None,
            "service_accounts": {"system": none, "task": none},
            "task_id": task.id,
        }

    def _find(self, name: str, bot_id: str | None) -> Event | None:
        return next((e for e in self.events if e.event == name and bot_id in {None, e.bot_id}), None)


def terminate_order() -> dict[str, Any]:
    """The answer to a poll that ends a bot in an orderly way."""
    return {"cmd": "terminate", "task_id": f"{_ORDER}{int(time.time() * 1000) & 0xFFFFFFFFFFFF:014x}1"}


def _final_state(task: Task, body: Mapping[str, Any]) -> TaskState:
    """``canceled`` says that the command was never started."""
    if body.get("canceled"):
        return "CANCELED"
    if task.must_stop:
        return "KILLED"
    return "TIMED_OUT" if body.get("hard_timeout") or body.get("io_timeout") else "COMPLETED"


def _required_id(body: Mapping[str, Any]) -> str:
    """The id that the body names: in its dimensions, or, in the newer calls, by itself."""
    dimensions = body.get("dimensions")
    if dimensions is None:
        return str(body["id"])
    found = dimensions["id"]
    return found if isinstance(found, str) else str(found[0])


def _bot_id(body: Mapping[str, Any]) -> str:
    try:
        return _required_id(body)
    except (LookupError, TypeError):
        return "unknown"
