"""Runs a program as if on another platform: pretend.py PLATFORM PROGRAM ARGUMENT...

What Linux alone has is taken away: modules cannot be imported and functions are missing, for all code that is
imported from then on. The standard library's own choices, and psutil's, are made before, by the real platform.
"""

import importlib.abc
import importlib.machinery
import os
import runpy
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from types import ModuleType
from typing import Final

import msgspec
import psutil

# They choose by platform, when they are imported.
CHOSEN: Final = (shutil, subprocess, tempfile, urllib.request, msgspec, psutil)

MODULES: Final = {
    "cgroupspy", "fcntl", "jeepney", "pty", "pyroute2", "resource", "spwd", "termios", "tty",
}  # fmt: skip
OF_LINUX: Final = {
    os: (
        "O_PATH", "eventfd", "eventfd_read", "eventfd_write", "fdatasync", "getxattr", "listxattr", "memfd_create",
        "pidfd_open", "removexattr", "setxattr", "posix_fallocate", "sched_getaffinity", "splice",
    ),
    select: ("epoll", "EPOLLIN", "EPOLLPRI"),
    signal: ("pidfd_send_signal", "sigwaitinfo", "sigtimedwait"),
    socket: ("SO_PEERCRED",),
}  # fmt: skip
OF_POSIX: Final = {
    os: (
        "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fchmod", "fork", "getegid", "geteuid",
        "getgid", "getpgid", "getsid", "getuid", "killpg", "mkfifo", "pread", "pwrite", "set_blocking", "setsid",
        "uname",
    ),
    select: ("poll",),
    signal: ("SIGCHLD", "SIGCONT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "pthread_sigmask"),
    socket: ("AF_UNIX", "SCM_RIGHTS"),
}  # fmt: skip


class NotThere(importlib.abc.MetaPathFinder):
    """Modules that the platform does not have."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r} on {sys.platform}", name=name)
        return None


def _keep_choices() -> None:
    """What has chosen keeps what it chose by: rmtree of Python 3.13 opens with O_NONBLOCK. And what
    is executable on Windows goes by the end of its name (shutil.which since Python 3.12).
    """
    real = ModuleType("os")
    real.__dict__.update(vars(os))
    for module in CHOSEN:
        if hasattr(module, "os"):
            setattr(module, "os", real)  # noqa: B010  types know no module of a module
    os.environ["PATHEXT"] = os.path.basename(sys.executable)
    setattr(ssl, "enum_certificates", lambda _store: [])  # noqa: B010  what Windows alone has; without certificates


def pretend(platform: str) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in MODULES:
            del sys.modules[name]
    sys.meta_path.insert(0, NotThere())
    _keep_choices()
    sys.platform = platform
    for missing in (OF_LINUX,) if platform == "darwin" else (OF_LINUX, OF_POSIX):
        for module, names in missing.items():
            for name in names:
                if hasattr(module, name):
                    delattr(module, name)


if __name__ == "__main__":
    _, wanted, program, *words = sys.argv
    assert not any(name.partition(".")[0] == "swarmcg" for name in sys.modules)
    pretend(wanted)
    sys.argv = [program, *words]
    runpy.run_path(program, run_name="__main__")
