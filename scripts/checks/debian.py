"""What is taken from Debian's archive, by the machine's own sources."""

import functools
import os
import shutil
import subprocess


def provide(tool: str, package: str) -> bool:
    """Whether `tool` is there, after its package was installed if that was possible."""
    if shutil.which(tool) is None and _can_install():
        print(f"installing {package}", flush=True)
        _update()
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", package]
        subprocess.run(
            command,
            check=False,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.DEVNULL,
        )
    return shutil.which(tool) is not None


def _can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


@functools.cache
def _update() -> None:
    subprocess.run(["apt-get", "update", "-qq"], check=False)
