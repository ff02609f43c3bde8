"""What a Swarming server knows of one task, one bot, and one thing that happened."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

__all__ = ["Event", "KnownBot", "Task", "TaskState"]

TaskState = Literal["PENDING", "RUNNING", "COMPLETED", "CANCELED", "KILLED", "TIMED_OUT", "BOT_DIED"]


class Event(NamedTuple):
    """Something that a bot told, as ``bot_shutdown``, or that the server noted about it, as ``run``."""

    bot_id: str
    event: str
    message: str


class KnownBot(NamedTuple):
    """A bot as the server last saw it. ``state`` is ``idle``, ``running ID`` or ``left``; ``seen`` is a Unix
    time.
    """

    bot_id: str
    version: str
    state: str
    seen: float


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
        self.request: str | None = None
        """The poll that it was handed out to: asked again, that poll is answered the same."""
        self._changed: Final = changed

    def wait(self, timeout: float = 60.0) -> TaskState:
        """The state that the task ended in. Raises TimeoutError when ``timeout`` seconds pass first."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.ended, timeout):
                raise TimeoutError(f"task {self.id} is still {self.state} after {timeout} s")
        return self.state

    def wait_until_running(self, timeout: float = 60.0) -> None:
        """Returns when a bot has been given the task. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.state == "RUNNING" or self.ended, timeout):
                raise TimeoutError(f"task {self.id} was not begun within {timeout} s")

    def wait_for_output(self, wanted: bytes = b"", timeout: float = 60.0) -> bytes:
        """The output so far, when the wanted bytes (b"": any at all) are in it. Raises TimeoutError, also
        when the task ends without them.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has(wanted) or self.ended, timeout)
            if not self._has(wanted):
                raise TimeoutError(f"task {self.id} ({self.state}) has not written {wanted!r}")
            return self.output

    def _has(self, wanted: bytes) -> bool:
        return bool(self.output) and wanted in self.output

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state not in {"PENDING", "RUNNING"}
