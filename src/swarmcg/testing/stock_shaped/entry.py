"""The commands of the zip."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import time
import zipfile
from typing import Any

from swarmcg.testing.stock_shaped import isolated, leader, runner
from swarmcg.testing.stock_shaped.processes import execute, replace

if sys.platform == "win32":
    raise ImportError("this bot needs process groups and flock")


def main(argv: list[str]) -> int:
    """What ``PYTHON ZIP COMMAND …`` does; the work directory is the zip's own."""
    zip_path = os.path.abspath(argv[0])
    os.chdir(os.path.dirname(zip_path))
    os.makedirs("logs", exist_ok=True)
    signal.signal(signal.SIGUSR1, _dump_stacks)
    if os.path.basename(zip_path) == "swarming_bot.zip":
        _become_a_copy(zip_path, argv[1:])
    command, arguments = (argv[1], argv[2:]) if argv[1:] else ("start_slave", [])
    with zipfile.ZipFile(zip_path) as archive:
        config: dict[str, Any] = json.loads(archive.read("config/config.json"))
    return _do(command, arguments, zip_path, config)


def _do(command: str, arguments: list[str], zip_path: str, config: dict[str, Any]) -> int:
    if command == "start_slave":
        execute(zip_path, "start_bot")
    if command == "start_bot":
        _log_to("swarming_bot")
        time.sleep(config["before_handler_s"])  # the imports of the stock bot
        return leader.main(zip_path, config)
    if command == "task_runner":
        _log_to("task_runner")
        return runner.main(arguments, zip_path, config)
    if command == "run_isolated":
        _log_to("run_isolated")
        return isolated.main(arguments)
    if command in {"is_fine", "version"}:  # fine is what can be imported
        print(config["version"])
        return 0
    print(f"Unknown command {command}", file=sys.stderr)
    return 1


def _become_a_copy(zip_path: str, words: list[str]) -> None:
    """So that a later version can take the place of what is run, and the first one stays to fall back on."""
    copy = os.path.join(os.path.dirname(zip_path), "swarming_bot.1.zip")
    replace(zip_path, copy)
    execute(copy, *words)


def _dump_stacks(_number: int, _frame: object) -> None:
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    os._exit(0)


def _log_to(name: str) -> None:
    logging.basicConfig(
        filename=f"logs/{name}.log", level=logging.DEBUG, format="%(process)d %(asctime)s %(message)s"
    )
