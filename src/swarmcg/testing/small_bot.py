"""A small Swarming bot: it handshakes, polls, and runs the commands that it is given.

Standard library only, and only this file: it is packed into a zip with its server's address and runs on any
Python from 3.8 on, as ``PYTHON ZIP start_bot``. SWARMING_BOT_ID is its id, the directory of the zip its work
directory.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from typing import Any

if sys.platform == "win32":
    raise ImportError("this bot needs process groups and flock")

REQUEST_TIMEOUT = 10.0
OUTPUT_CHUNK = 1 << 16
TICK = 0.1
UPDATE_INTERVAL = 0.25
FINAL_ATTEMPTS = 6


class Bell:
    """Sleep that a signal ends: Python's own sleep goes on after one."""

    def __init__(self) -> None:
        self.rung = False
        self._inner, self._outer = socket.socketpair()
        for end in (self._inner, self._outer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._outer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ring)

    def _ring(self, _number: int, _frame: object) -> None:
        self.rung = True

    def wait(self, seconds: float, *descriptors: int) -> bool:
        """Whether one of the descriptors became readable before a signal came or the time was over."""
        ready, _, _ = select.select([self._inner.fileno(), *descriptors], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while self._inner.recv(64):
                pass
        return any(descriptor in ready for descriptor in descriptors)


class Server:
    """The calls of the Swarming bot API that this bot makes."""

    def __init__(self, config: dict[str, Any], bot_id: str) -> None:
        self._base = config["server"] + "/swarming/api/v1/bot/"
        self._about = {
            "version": config["version"],
            "dimensions": {"id": [bot_id], "os": ["Linux"], "pool": ["default"]},
            "state": {"pid": os.getpid(), "python": sys.version.split()[0]},
        }

    def call(self, name: str, **more: Any) -> dict[str, Any]:
        """The answer to a POST. Raises OSError."""
        body = json.dumps({**self._about, **more}).encode()
        request = urllib.request.Request(self._base + name, body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT) as answer:  # noqa: S310  its own server
            found: dict[str, Any] = json.load(answer)
            return found

    def tell(self, name: str, **more: Any) -> dict[str, Any]:
        """The same for what may get lost: a server that cannot be reached answers nothing."""
        try:
            return self.call(name, **more)
        except (OSError, ValueError) as e:
            print(f"{name}: {e}", file=sys.stderr, flush=True)
            return {}


class Run:
    """One task: its process, in a group of its own, and what the server was told of it."""

    def __init__(self, manifest: dict[str, Any], server: Server, work_directory: str) -> None:
        self._server = server
        self._name = "task_update/" + manifest["task_id"]
        self._grace = float(manifest.get("grace_period") or 30)
        self._hard_timeout = float(manifest.get("hard_timeout") or 3600)
        self._started = time.monotonic()
        self._told = 0
        self._pending = b""
        self._kill_at: float | None = None
        self._facts: dict[str, Any] = {"task_id": manifest["task_id"]}
        self._process = subprocess.Popen(
            manifest["command"],
            cwd=work_directory,
            env={**os.environ, **manifest.get("env", {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=os.setpgrp,  # noqa: PLW1509  this bot has one thread, and process_group= came with 3.11
        )

    def follow(self, bell: Bell) -> int:
        """Reports the task's output until it ends, and its exit code, which is returned."""
        pipe = self._process.stdout
        if pipe is None:
            raise AssertionError
        with pipe:
            os.set_blocking(pipe.fileno(), False)
            watched = [pipe.fileno()]
            last = time.monotonic()
            while self._process.poll() is None:
                readable = bell.wait(TICK, *watched)
                output = read_available(pipe.fileno())
                if readable and not output:
                    watched = []  # the end of the file: it would stay readable for ever
                if output or time.monotonic() - last > UPDATE_INTERVAL:
                    self._update(output)
                    last = time.monotonic()
                self._enforce()
            code = self._process.returncode
            self._end_group(signal.SIGKILL)
            aborted = bell.rung and code == -signal.SIGTERM
            # An aborted task is told by task_error: with an exit code it would count as completed.
            told = {} if aborted else {"exit_code": code}
            self._finish(bell, read_available(pipe.fileno()), told)
        return code

    def _age(self) -> float:
        return time.monotonic() - self._started

    def _update(self, output: bytes, **more: Any) -> bool:
        """Whether the server took the output so far; what it did not is sent again next time."""
        self._pending += output
        text = base64.b64encode(self._pending).decode()
        answer = self._server.tell(
            self._name, output=text, output_chunk_start=self._told, **self._facts, **more
        )
        if answer:
            self._told += len(self._pending)
            self._pending = b""
        if answer.get("must_stop") and self._kill_at is None:
            self._stop()
        return bool(answer)

    def _finish(self, bell: Bell, output: bytes, told: dict[str, Any]) -> None:
        """The last update, which is worth some attempts."""
        for attempt in range(FINAL_ATTEMPTS):
            if self._update(output if attempt == 0 else b"", duration=self._age(), **told):
                return
            bell.wait(TICK * 2**attempt)

    def _enforce(self) -> None:
        if self._kill_at is None and self._age() > self._hard_timeout:
            self._facts["hard_timeout"] = True
            self._stop()
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            self._end_group(signal.SIGKILL)

    def _stop(self) -> None:
        self._kill_at = time.monotonic() + self._grace
        self._end_group(signal.SIGTERM)

    def _end_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def read_available(descriptor: int) -> bytes:
    """What can be read without waiting."""
    found = b""
    with contextlib.suppress(BlockingIOError):
        while len(found) < OUTPUT_CHUNK:
            chunk = os.read(descriptor, OUTPUT_CHUNK)
            if not chunk:
                break
            found += chunk
    return found


class SmallBot:
    """The loop: ask, do, until told to stop."""

    def __init__(self, zip_path: str, bot_id: str) -> None:
        self._work_directory = os.path.dirname(zip_path)
        with zipfile.ZipFile(zip_path) as archive:
            self._server = Server(json.loads(archive.read("config.json")), bot_id)
        self._bell = Bell()

    def main(self) -> int:
        """Runs until it is stopped by a signal, the drain file or the server. Returns the exit code."""
        self._insist("handshake")
        why = ""
        while not why:
            why = self._stopped() or self._obey(self._insist("poll"))
        self._server.tell("event", event="bot_shutdown", message=why)
        return 0

    def _stopped(self) -> str:
        if self._bell.rung:
            return "Signal was received"
        return "The drain file was found" if os.path.exists(self._work_directory + ".drain") else ""

    def _insist(self, name: str) -> dict[str, Any]:
        """The server's answer, however long that takes; nothing once the bot is to stop."""
        pause = TICK
        while not self._stopped():
            answer = self._server.tell(name)
            if answer:
                return answer
            self._pause(pause)
            pause = min(2 * pause, 5.0)
        return {"cmd": "sleep", "duration": 0}

    def _obey(self, answer: dict[str, Any]) -> str:
        """Does what a poll was answered; returns why the bot is to stop now, or nothing."""
        command = answer.get("cmd")
        if command == "run":
            self._run(answer["manifest"])
        elif command == "terminate":
            self._server.tell("task_update/" + answer["task_id"], task_id=answer["task_id"], exit_code=0)
            return "The server asked for it"
        elif command == "sleep":
            self._pause(float(answer["duration"]))
        else:
            self._server.tell("event", event="bot_error", message=f"cannot do {command}")
            self._pause(1.0)
        return ""

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stopped():
            self._bell.wait(min(TICK, max(0.0, end - time.monotonic())))

    def _run(self, manifest: dict[str, Any]) -> None:
        name = "task_error/" + manifest["task_id"]
        try:
            task = Run(manifest, self._server, self._work_directory)
        except OSError as e:
            self._server.tell(name, message=f"cannot start the command: {e}", task_id=manifest["task_id"])
            return
        code = task.follow(self._bell)
        if self._bell.rung and code == -signal.SIGTERM:
            self._server.tell(name, message="aborted by SIGTERM", task_id=manifest["task_id"])


def lock(work_directory: str) -> int:
    """Holds the work directory for this bot. Raises BlockingIOError while another bot does."""
    descriptor = os.open(
        os.path.join(work_directory, "swarming.lck"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
    )
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def main(arguments: list[str]) -> int:
    """What the zip runs: ``start_bot`` is the only command it knows."""
    zip_path = os.path.abspath(arguments[0])
    if arguments[1:] != ["start_bot"]:
        print(f"usage: PYTHON {zip_path} start_bot", file=sys.stderr)
        return 2
    try:
        lock(os.path.dirname(zip_path))
    except BlockingIOError:
        print("another bot runs in this work directory", file=sys.stderr)
        return 1
    return SmallBot(zip_path, os.environ.get("SWARMING_BOT_ID") or socket.gethostname()).main()
