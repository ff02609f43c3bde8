"""The bot itself: asks the server what to do, and does it, until a signal or the server says stop."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
import uuid
from typing import Any

from swarmcg.testing.small_bot import Bell, lock
from swarmcg.testing.stock_shaped.client import Remote
from swarmcg.testing.stock_shaped.processes import detached, end, execute, replace

if sys.platform == "win32":
    raise ImportError("this bot needs process groups and flock")

LOG = logging.getLogger(__name__)
KEPT = (
    "*-cacert.pem", ".vpython3", "README*", "c", "cas_cache", "cipd_cache", "logs", "swarming.lck",
    "swarming_bot.zip", "swarming_bot.1.zip", "swarming_bot.2.zip", "tmp", "cas_kvs_cache_db",
)  # fmt: skip
LONGEST_PAUSE_S = 300.0
LEAST_GRACE_S = 30.0
LAST_DITCH_S = 1200.0


def main(zip_path: str, config: dict[str, Any]) -> int:
    """Runs the bot, unless there is one already."""
    directory = os.path.dirname(zip_path)
    try:
        held = lock(directory)
    except BlockingIOError:
        print(f"Found a previous bot, {os.getpid()} would reboot this host", file=sys.stderr, flush=True)
        time.sleep(config["second_bot_s"])  # where the stock bot asks for a reboot, this one ends
        return 1
    return Leader(zip_path, config, held).run()


class Leader:
    """Everything between the handshake and the last event. A signal only sets a flag."""

    def __init__(self, zip_path: str, config: dict[str, Any], held: int) -> None:
        self.base_dir = os.path.dirname(zip_path)
        self.id = os.environ.get("SWARMING_BOT_ID") or socket.gethostname()
        self._zip = zip_path
        self._config = config
        self._held = held
        self._bell = Bell()
        self._remote = Remote(config["server"], self.id)
        self._hooks: dict[str, Any] = {}
        self._quit = False
        self._attributes: dict[str, Any] = {
            "dimensions": {"id": [self.id], "os": ["Linux"], "pool": ["default"]},
            "state": {"pid": os.getpid(), "python": sys.version.split()[0]},
            "version": config["version"],
        }
        os.environ["SWARMING_HEADLESS"] = "1"

    def run(self) -> int:
        """The exit code: 0 when it was asked to stop."""
        self._remote.ping()
        self._handshake()
        if self._stopping():
            return 0
        self._clear()
        os.environ["SWARMING_BOT_ID"] = self.id
        errors, request = 0, str(uuid.uuid4())
        while not self._stopping():
            answer = self._remote.post("poll", {**self._attributes, "request_uuid": request}, attempts=1)
            if answer is None:
                errors += 1
                self._bell.wait(min(LONGEST_PAUSE_S, 1.4**errors))
                continue
            errors, request = 0, str(uuid.uuid4())
            LOG.info("told to %s", answer)
            self._obey(answer)
        self._tell("bot_shutdown", "Signal was received")
        return 0

    def _stopping(self) -> bool:
        return self._quit or self._bell.rung

    def _tell(self, event: str, message: str) -> None:
        self._remote.post("event", {**self._attributes, "event": event, "message": message})

    def _handshake(self) -> None:
        attempt = 0
        while not self._stopping():
            answer = self._remote.post("handshake", self._attributes)
            if answer is not None:
                self._attributes["session"] = answer.get("session")
                self._take_hooks(answer.get("bot_config") or "")
                return
            attempt += 1
            self._bell.wait(min(LONGEST_PAUSE_S, 2.0**attempt))

    def _take_hooks(self, source: str) -> None:
        try:
            exec(compile(source, "injected.py", "exec"), self._hooks)  # noqa: S102  the server's, as in the stock bot
        except Exception:  # noqa: BLE001  whatever is wrong with them
            self._complain("bad bot_config")

    def _call_hook(self, name: str, *arguments: Any) -> None:
        try:
            if name in self._hooks:
                self._hooks[name](self, *arguments)
        except Exception:  # noqa: BLE001  whatever a hook does
            traceback.print_exc()
            self._complain(f"Failed to call hook {name}()")

    def _complain(self, what: str) -> None:
        why = f"{what}: {traceback.format_exc()[-2048:]}"
        LOG.warning("%s", why)
        self._tell("bot_error", why)

    def _clear(self) -> None:
        """Deletes everything in the work directory that it does not know."""
        if self.base_dir == os.path.expanduser("~"):
            return
        for name in os.listdir(self.base_dir):
            if not any(fnmatch.fnmatch(name, kept) for kept in KEPT):
                remove(os.path.join(self.base_dir, name))

    def _obey(self, answer: dict[str, Any]) -> None:
        command = answer["cmd"]
        if command == "sleep":
            self._keep_good_code()
            self._bell.wait(float(answer["duration"]))
        elif command == "run":
            self._run(answer["manifest"])
        elif command == "terminate":
            self._quit = True
            self._remote.task_update(answer["task_id"], {"duration": 0}, exit_code=0)
        elif command == "update":
            self._update(answer["version"])
        elif command == "bot_restart":
            self._restart(answer["message"], self._zip)
        elif command in {"host_reboot", "restart"}:
            self._tell("bot_rebooting", answer["message"])
            while not self._stopping():  # it does not reboot anything, but waits as if it had
                self._bell.wait(LONGEST_PAUSE_S)
        else:
            self._tell("bot_error", f"Unexpected command {command}")
            self._bell.wait(1.0)

    def _run(self, manifest: dict[str, Any]) -> None:
        work = os.path.join(self.base_dir, "w")
        remove(work)
        os.makedirs(work)
        try:
            error = self._run_in(work, manifest)
        except (OSError, ValueError) as e:
            error = f"Internal exception occurred: {e}"
        if error:
            self._remote.task_error(manifest["task_id"], error)
        remove(work)
        self._keep_good_code()

    def _run_in(self, work: str, manifest: dict[str, Any]) -> str | None:
        """Has a task runner run the task; what went wrong with that, if the runner has not told the server."""
        given, result, bot_file = (
            os.path.join(work, name)
            for name in ("task_runner_in.json", "task_runner_out.json", "bot_file.json")
        )
        with open(given, "w") as file:
            json.dump(manifest, file)
        with open(bot_file, "w"):
            pass
        command = [sys.executable, self._zip, "task_runner", "--in-file", given, "--out-file", result]
        command += ["--bot-file", bot_file, "--"]
        env = {
            **os.environ,
            "SWARMING_TASK_ID": manifest["task_id"],
            "SWARMING_SERVER": self._config["server"],
        }
        self._call_hook("on_before_task", bot_file, command, env)
        LOG.info("running %s", command)
        with open(os.path.join(self.base_dir, "logs", "task_runner_stdout.log"), "ab") as log:
            process = detached(command, cwd=self.base_dir, env=env, stdout=log, stderr=subprocess.STDOUT)
            code = wait_for_runner(process, manifest)
        if code:
            return f"Execution failed: internal error ({code})."
        with open(result) as file:
            told = json.load(file)
        return None if told["internal_error_reported"] else told["internal_error"]

    def _keep_good_code(self) -> None:
        """After a full round this code is good enough to be started from next time."""
        golden = os.path.join(self.base_dir, "swarming_bot.zip")
        with contextlib.suppress(OSError):
            if not os.path.exists(golden) or os.stat(golden).st_mtime < os.stat(self._zip).st_mtime:
                replace(self._zip, golden)

    def _update(self, version: str) -> None:
        """Goes on as another version, from the zip that it is not run from."""
        first = os.path.join(self.base_dir, "swarming_bot.1.zip")
        new = first if self._zip != first else os.path.join(self.base_dir, "swarming_bot.2.zip")
        if self._remote.download(version, new):
            self._restart(f"Updating to {version}", new)
        self._tell("bot_error", f"Failed to self-update to {version}")
        self._bell.wait(2.0)

    def _restart(self, message: str, zip_path: str) -> None:
        """Goes on as this zip under the same pid; returns when that zip is no good."""
        check = detached(
            [sys.executable, zip_path, "is_fine"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = check.communicate()
        if check.returncode:
            self._tell("bot_error", f"New bot code is bad: {said.decode(errors='replace')}")
            return
        self._tell("bot_shutdown", f"About to restart: {message}")
        self._remote.close()
        time.sleep(self._config["restart_s"])
        with contextlib.suppress(OSError):
            os.remove(os.path.join(self.base_dir, "swarming.lck"))
        os.close(self._held)
        execute(zip_path, "start_slave", "--survive")


def wait_for_runner(process: subprocess.Popen[bytes], manifest: dict[str, Any]) -> int:
    """The runner's exit code. It sees to the task's limits itself; one that hangs is ended long after them."""
    grace = max(float(manifest["grace_period"] or 0), LEAST_GRACE_S)
    limit = float(manifest["hard_timeout"] or 0)
    try:
        return process.wait(limit + 3 * grace + LAST_DITCH_S if limit else None)
    except subprocess.TimeoutExpired:
        return end(process, 2 * grace) or 1


def remove(path: str) -> None:
    """A file or a tree, as far as that can be done."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.remove(path)
