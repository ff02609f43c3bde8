"""The process that runs a task's command, in a directory and a process group of its own."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import time
from typing import Any

from swarmcg.testing.small_bot import Bell
from swarmcg.testing.stock_shaped.processes import detached, end, kill_group

if sys.platform == "win32":
    raise ImportError("this bot needs process groups and flock")

LOG = logging.getLogger(__name__)
NOT_FOUND = (
    "<The executable does not exist or a dependent library is missing>\n<Command: {}>\n<Exception: {}>\n"
)


def main(arguments: list[str]) -> int:
    """Runs a command as the flags say, which may stand in a file (``-a``); 1 when that was not possible."""
    if arguments[:1] == ["-a"]:
        with open(arguments[1]) as file:
            arguments = json.load(file)
    asked = _parser().parse_args(arguments)
    result: dict[str, Any] = {
        "exit_code": None,
        "had_hard_timeout": False,
        "internal_failure": "Was terminated before completion",
    }
    _write(asked.json, result)  # in case we are killed
    bell = Bell()
    signal.signal(signal.SIGCHLD, lambda *_: None)  # rings, so that the end of the command is seen at once
    try:
        result["exit_code"], result["had_hard_timeout"] = _run(asked, bell)
        result["internal_failure"] = None
    except (OSError, RuntimeError) as e:
        LOG.exception("internal failure")
        result["internal_failure"] = str(e)
    for name in ("ir", "it", "cc"):
        shutil.rmtree(os.path.join(asked.root_dir, name), ignore_errors=True)
    _write(asked.json, result)
    return int(bool(result["internal_failure"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", required=True)
    parser.add_argument("--root-dir", required=True)
    parser.add_argument("--hard-timeout", type=float, default=0.0)
    parser.add_argument("--grace-period", type=float, default=0.0)
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--relative-cwd", default=".")
    parser.add_argument("--cipd-enabled", choices=("true", "false"), default="true")
    parser.add_argument("command", nargs="+")
    return parser


def _write(path: str, result: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)  # tasks were seen to delete it
    with open(path, "w") as file:
        json.dump(result, file)


def _run(asked: argparse.Namespace, bell: Bell) -> tuple[int, bool]:
    """The command's exit code, and whether it took too long."""
    _install_client(asked)
    env = {**os.environ, **dict(pair.split("=", 1) for pair in asked.env)}
    env["TMPDIR"] = os.path.join(asked.root_dir, "it")
    directory = os.path.join(asked.root_dir, "ir", asked.relative_cwd)
    for path in (directory, env["TMPDIR"]):
        os.makedirs(path, exist_ok=True)
    try:
        process = detached(asked.command, cwd=directory, env=env)
    except OSError as e:  # no failure of ours
        sys.stderr.write(NOT_FOUND.format(asked.command, e))
        return 1, False
    deadline = time.monotonic() + asked.hard_timeout if asked.hard_timeout else None
    while process.poll() is None and not bell.rung and (deadline is None or time.monotonic() < deadline):
        bell.wait(1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic())))
    late = process.poll() is None and not bell.rung
    if process.poll() is None:
        LOG.warning("Sending SIGTERM")
        end(process, asked.grace_period or None)
    kill_group(process)
    return process.wait(), late


def _install_client(asked: argparse.Namespace) -> None:
    """Where a stock bot fetches the CAS client from CIPD, which this one cannot."""
    if asked.cipd_enabled == "true":
        raise RuntimeError("this bot has no CIPD; its server's hooks must say --cipd-enabled false")
    source = os.path.join(os.environ.get("LUCI_GO_CLIENT_DIR", ""), "cas")
    if not os.access(source, os.X_OK):
        raise RuntimeError("LUCI_GO_CLIENT_DIR must name a directory with an executable cas")
    os.makedirs(os.path.join(asked.root_dir, "cc"), exist_ok=True)
    shutil.copy2(source, os.path.join(asked.root_dir, "cc", "cas"))
