"""A disk that is really full while a bot's code comes to it: a small tmpfs in a mount namespace."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from swarmcg.testing import SwarmingServer

PROGRAM = """
import errno, os, subprocess, sys
from swarmcg.bot_code import fetch, install
from swarmcg.errors import BotCodeError

step, url, disk, elsewhere = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
code = fetch(url, "bot", elsewhere) if step == "install" else None
try:
    install(code, disk) if code else fetch(url, "bot", disk)
except BotCodeError as e:
    assert e.errno == errno.ENOSPC, e
    assert disk in e.remedy, e.remedy
    left = [name for _, _, names in os.walk(disk) for name in names]
    print("full, left:", left)
"""


@pytest.mark.parametrize("step", ["fetch", "install"])
def test_a_full_disk_is_told_and_no_partial_file_is_left(tmp_path: Path, step: str) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    with SwarmingServer() as server:
        server.zip = large_zip()
        command = [
            "unshare",
            "-m",
            "--propagation",
            "private",
            sys.executable,
            "-c",
            PROGRAM,
            step,
            server.url,
        ]
        told = subprocess.run([*command, disk, elsewhere], check=False, capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("full, left: []\n", "")


def large_zip() -> bytes:
    """A valid package that is larger than the disk."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("__main__.py", "#" * 200_000)
    return buffer.getvalue()
