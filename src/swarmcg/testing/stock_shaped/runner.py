"""The process that follows one task and tells the server of it. SIGTERM aborts the task in an orderly way."""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import subprocess
import sys
import time
from typing import Any

from swarmcg.testing.small_bot import Bell, read_available
from swarmcg.testing.stock_shaped.client import Remote
from swarmcg.testing.stock_shaped.processes import detached, end, kill_group

if sys.platform == "win32":
    raise ImportError("this bot needs process groups and flock")

LOG = logging.getLogger(__name__)
TICK_S = 0.1
LARGEST_PACKET = 102_400


class Abort(Exception):  # noqa: N818  it is an order
    """The task is to be ended now, and the server told why."""


def main(arguments: list[str], zip_path: str, config: dict[str, Any]) -> int:
    """Runs the task of ``--in-file`` and leaves in ``--out-file`` what the bot must know."""
    parser = argparse.ArgumentParser()
    for name in ("--in-file", "--out-file", "--bot-file"):
        parser.add_argument(name, required=True)
    parser.add_argument("flags", nargs="*", help="for run_isolated")
    asked = parser.parse_args(arguments)
    with open(asked.in_file) as file:
        manifest = json.load(file)
    runner = Runner(manifest, zip_path, config, os.path.dirname(asked.out_file))
    error = runner.run(asked.flags)
    with open(asked.out_file, "w") as file:
        json.dump({"internal_error": error, "internal_error_reported": runner.error_reported}, file)
    return 0


class Runner:
    """One task. Its process and all that it starts end before :meth:`run` returns; its daemons do not."""

    def __init__(self, manifest: dict[str, Any], zip_path: str, config: dict[str, Any], work: str) -> None:
        self.error_reported = False
        self._task = manifest
        self._zip = zip_path
        self._config = config
        self._work = work
        self._bell = Bell()
        self._remote = Remote(manifest.get("host") or config["server"], manifest["bot_id"])
        self._facts: dict[str, Any] = {"cost_usd": 0.0}
        self._began = self._told_at = self._heard_at = time.monotonic()
        self._output = b""
        self._told = 0
        self._stopped_at: float | None = None

    def run(self, flags: list[str]) -> str | None:
        """Why the task could not be run to its end; None when it was, however it ended."""
        try:
            if self._update():
                self._facts["canceled"] = True
                self._update(exit_code=-1)
                return None
            process = self._start(flags)
        except Abort as e:
            return str(e)
        error: str | None = None
        try:
            self._follow(process)
        except Abort as e:
            error = str(e)
            LOG.warning("aborting: %s", error)
            end(process, self._grace)
        return self._finish(error)

    @property
    def _grace(self) -> float:
        """One grace period for the command, and one for the process that runs it."""
        return 2 * float(self._task["grace_period"] or 0)

    def _start(self, flags: list[str]) -> subprocess.Popen[bytes]:
        task = self._task
        args = ["--json", self._result, "--root-dir", self._work]
        args += [
            "--hard-timeout",
            str(task["hard_timeout"] or 0),
            "--grace-period",
            str(task["grace_period"] or 0),
        ]
        args += [word for name, value in task["env"].items() for word in ("--env", f"{name}={value}")]
        if task["relative_cwd"]:
            args += ["--relative-cwd", task["relative_cwd"]]
        args += [*flags, "--", *task["command"]]
        args_file = os.path.join(self._work, "run_isolated_args.json")
        with open(args_file, "w") as file:
            json.dump(args, file)
        command = [sys.executable, "-u", self._zip, "run_isolated", "-a", args_file]
        return detached(command, cwd=self._work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    @property
    def _result(self) -> str:
        return os.path.join(self._work, "isolated_result.json")

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Returns when the process has ended. Raises Abort on a signal, and when the server is lost."""
        assert process.stdout is not None  # noqa: S101  a pipe was asked for
        pipe = process.stdout.fileno()
        os.set_blocking(pipe, False)
        watched = [pipe]
        while True:
            running = process.poll() is None
            readable = self._bell.wait(TICK_S if running else 0.0, *watched)
            chunk = read_available(pipe)
            if self._bell.rung:
                raise Abort("task_runner received signal 15")
            if readable and not chunk:
                watched = []  # the end of the file: it would stay readable for ever
            self._hear(chunk)
            if not running and not chunk:  # a daemon may hold the pipe open for ever
                return
            self._mind(process)

    def _hear(self, chunk: bytes) -> None:
        if chunk:
            self._output += chunk
            self._heard_at = time.monotonic()

    def _mind(self, process: subprocess.Popen[bytes]) -> None:
        """Tells the server now and then, and sees to its wishes and the task's limits."""
        now = time.monotonic()
        interval = self._config["output_s"] if self._output else self._config["quiet_s"]
        must_stop = False
        if len(self._output) >= LARGEST_PACKET or now - self._told_at > interval:
            must_stop = self._update()
        if self._stopped_at is not None:
            if now - self._stopped_at > self._grace:
                kill_group(process)
            return
        limit = self._task["io_timeout"]
        self._facts["io_timeout"] = bool(limit and now - self._heard_at > limit)
        if must_stop or self._facts["io_timeout"]:
            process.terminate()
            self._stopped_at = now

    def _update(self, exit_code: int | None = None) -> bool:
        """Whether the server wants the task stopped. Raises Abort when it cannot be reached."""
        text = base64.b64encode(self._output).decode()
        answer = self._remote.task_update(self._task["task_id"], self._facts, text, self._told, exit_code)
        if not answer or answer.get("error"):
            raise Abort((answer or {}).get("error") or "Failed to contact server")
        self._told += len(self._output)
        self._output = b""
        self._told_at = time.monotonic()
        return bool(answer.get("must_stop"))

    def _finish(self, error: str | None) -> str | None:
        """The last word to the server: an exit code, or why there is none."""
        exit_code = None
        try:
            with open(self._result) as file:
                found = json.load(file)
        except (OSError, ValueError):
            found = {"exit_code": -1, "had_hard_timeout": False, "internal_failure": None}
        error = error or found["internal_failure"]
        if not error:
            exit_code = found["exit_code"]
            self._facts["duration"] = time.monotonic() - self._began
        self._facts["hard_timeout"] = found["had_hard_timeout"]
        try:
            self._update(exit_code)
        except Abort as e:
            return error or str(e)
        if error:
            self.error_reported = self._remote.task_error(self._task["task_id"], error)
        return error
