"""Processes as the stock bot starts and ends them, each in a group of its own, and the zips that they go on as."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

if sys.platform == "win32":
    raise ImportError("this bot needs process groups and flock")


def detached(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a command in a process group of its own, in this session."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=os.setpgrp,  # noqa: PLW1509  there is one thread, and process_group= came with 3.11
        **options,
    )


def end(process: subprocess.Popen[bytes], grace: float | None) -> int:
    """SIGTERM to the process, and after the grace period (None: never) SIGKILL to its group. Its status."""
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        kill_group(process)
    return process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to whoever is left in the group. A daemon, in a session of its own, is not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def execute(zip_path: str, *words: str) -> None:
    """Goes on as this zip, under the same pid. Does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, zip_path, *words])


def replace(zip_path: str, copy: str) -> None:
    """Makes ``copy`` the same as this zip, at once: a bot that starts meanwhile reads the one or the other, never a
    part, and Python runs an empty file without a word.
    """
    partial = f"{copy}.{os.getpid()}"
    shutil.copyfile(zip_path, partial)
    os.replace(partial, copy)
