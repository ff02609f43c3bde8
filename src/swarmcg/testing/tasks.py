"""What a Swarming server knows of bots and tasks, and what it answers: the API without HTTP."""

import base64
import binascii
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

__all__ = ["Board", "Event", "Task", "TaskState"]

TaskState = Literal["PENDING", "RUNNING", "COMPLETED", "CANCELED", "KILLED", "TIMED_OUT", "BOT_DIED"]

_MOST_OUTPUT: Final = 64 << 20


class Event(NamedTuple):
    """Something that a bot told, as ``bot_shutdown``, or that the server noted about it, as ``run``."""

    bot_id: str
    event: str
    message: str


class Task:
    """A command for a bot, as the server sees it. The attributes change while it runs."""

    def __init__(
        self, number: int, command: Sequence[str], facts: Mapping[str, Any], changed: threading.Condition
    ) -> None:
        self.id: Final = f"{number:015x}1"  # the last digit of a run's id is 1
        self.command: Final = list(command)
        self.facts: Final = dict(facts)
        self.state: TaskState = "PENDING"
        self.output = b""
        self.exit_code: int | None = None
        self.error: str | None = None
        self.bot_id: str | None = None
        self.must_stop = False
        self._changed: Final = changed

    def wait(self, timeout: float = 60.0) -> TaskState:
        """The state that the task ended in. Raises TimeoutError when ``timeout`` seconds pass first."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.ended, timeout):
                raise TimeoutError(f"task {self.id} is still {self.state} after {timeout} s")
        return self.state

    def wait_until_running(self, timeout: float = 60.0) -> None:
        """Returns when a bot has told something of the task. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.state == "RUNNING" or self.ended, timeout):
                raise TimeoutError(f"task {self.id} was not begun within {timeout} s")

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state not in {"PENDING", "RUNNING"}


class Board:
    """All tasks, events and orders. Each method that a bot calls takes the body that it posted."""

    def __init__(self, url: str, version: str, sleep: float) -> None:
        self.version = version
        self.bot_config = ""
        self.events: Final[list[Event]] = []
        self.tasks: Final[dict[str, Task]] = {}
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

    def cancel(self, task: Task) -> None:
        """A task that has not begun never will; one that runs is to be stopped by its bot."""
        with self.changed:
            task.must_stop = True
            if task.state == "PENDING":
                task.state = "CANCELED"
            self.changed.notify_all()

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

    def events_from(self, start: int) -> list[Event]:
        """The events from that index on, as soon as there is one; none after half a second."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.events) > start, 0.5)
            return self.events[start:]

    def handshake(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot begins."""
        self._note(body, "bot_connected")
        return {
            "bot_version": self.version,
            "server_version": "1",
            "bot_group_cfg_version": "1",
            "bot_group_cfg": {"dimensions": {"pool": ["default"]}},
            "bot_config": self.bot_config,
            "bot_config_rev": "1",
            "bot_config_name": "bot_config.py",
            "session": f"session-{_bot_id(body)}",
        }

    def poll(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot asks what to do."""
        bot_id = _bot_id(body)
        if body.get("version") != self.version:
            return {"cmd": "update", "version": self.version}
        with self.changed:
            orders = self._orders.get(bot_id)
            if orders:
                return orders.pop(0)
            for task in self.tasks.values():
                if task.state == "PENDING" and task.bot_id in {None, bot_id}:
                    return self._hand_out(task, bot_id)
        return {"cmd": "sleep", "duration": self._sleep}

    def event(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot tells something; with ``bot_shutdown`` it leaves, and a task that it still ran died with
        it.
        """
        name = str(body.get("event", ""))
        with self.changed:
            for task in self.tasks.values():
                if name == "bot_shutdown" and task.state == "RUNNING" and task.bot_id == _bot_id(body):
                    task.state = "BOT_DIED"
        self._note(body, name, str(body.get("message", "")))
        return {}

    def task_update(self, task_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot tells how far its task is. Raises KeyError and ValueError for what cannot be."""
        order_done = task_id.startswith(_ORDER)
        if order_done:
            return {"ok": True, "must_stop": False}
        with self.changed:
            task = self.tasks[task_id]
            self._take_output(task, body)
            if body.get("exit_code") is not None and task.state == "RUNNING":
                task.exit_code = int(body["exit_code"])
                task.state = _final_state(body)
            self.changed.notify_all()
        if task.ended:
            self._note(
                body, "task_completed", f"{task.id} {task.state} exit code {task.exit_code}", task.bot_id
            )
        return {"ok": True, "must_stop": task.must_stop}

    def task_error(self, task_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A bot could not run its task, or had to abort it."""
        with self.changed:
            task = self.tasks[task_id]
            task.error = str(body.get("message", ""))
            task.state = "BOT_DIED"
        self._note(body, "task_error", f"{task.id} {task.error}", task.bot_id)
        return {"resp": 1}

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
        self.events.append(Event(bot_id, "run", task.id))
        self.changed.notify_all()
        return {"cmd": "run", "manifest": self._manifest(task, bot_id) | task.facts}

    def _manifest(self, task: Task, bot_id: str) -> dict[str, Any]:
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

    def _note(self, body: Mapping[str, Any], name: str, message: str = "", bot_id: str | None = None) -> None:
        with self.changed:
            self.events.append(Event(bot_id or _bot_id(body), name, message))
            self.changed.notify_all()


_ORDER: Final = "f"
"""Ids of orders that look like tasks (terminate) begin with it."""


def terminate_order() -> dict[str, Any]:
    """The answer to a poll that ends a bot in an orderly way."""
    return {"cmd": "terminate", "task_id": f"{_ORDER}{int(time.time() * 1000) & 0xFFFFFFFFFFFF:014x}1"}


def _final_state(body: Mapping[str, Any]) -> TaskState:
    if body.get("canceled"):
        return "KILLED"
    return "TIMED_OUT" if body.get("hard_timeout") or body.get("io_timeout") else "COMPLETED"


def _bot_id(body: Mapping[str, Any]) -> str:
    """The id that the body names; updates of a task may name it beside the dimensions."""
    if "dimensions" in body:
        return str(body["dimensions"]["id"][0])
    return str(body.get("id", "unknown"))
