"""The interface files of a cgroup v2 directory, declared as cgroupspy descriptors: one a file, named as in
the kernel.

cgroupspy knows version 1; its Node, Controller and descriptor classes carry version 2 with the few overrides
made here. Reading never turns an error into a number: what is absent is None, and any other trouble is
raised.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

from cgroupspy.controllers import Controller
from cgroupspy.interfaces import BaseFileInterface, DictFile, FlagFile, ListFile
from cgroupspy.nodes import Node

from swarmcg.errors import CgroupError

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = [
    "Cgroup",
    "Opened",
    "cgroup_errors",
    "exchange_line",
    "opened",
    "read_some",
    "read_text",
    "read_value",
    "write_line",
]

_ABSENT: Final = {errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV}
"""Not compiled in, not enabled, or off by the kernel command line (psi=0): absent, and no error."""
_CHUNK: Final = 65536


class Flat(DictFile):  # type: ignore[misc]  # cgroupspy has no types
    """A flat-keyed file, ``key value`` a line: a mapping of integers."""

    def sanitize_get(self, value: str) -> dict[str, int]:
        return {key: int(number) for key, number in map(str.split, value.splitlines())}


class Number(BaseFileInterface):  # type: ignore[misc]  # cgroupspy has no types
    """A file that holds one integer or ``max`` (None)."""

    def sanitize_get(self, value: str) -> int | None:
        return None if value == "max" else int(value)


class Nested(BaseFileInterface):  # type: ignore[misc]  # cgroupspy has no types
    """A nested-keyed file, ``key a=1 b=2`` a line: a mapping of mappings of text."""

    def sanitize_get(self, value: str) -> dict[str, dict[str, str]]:
        rows = [line.split() for line in value.splitlines()]
        return {key: dict(pair.split("=", 1) for pair in pairs if "=" in pair) for key, *pairs in rows}


class Words(ListFile):  # type: ignore[misc]  # cgroupspy has no types
    """A file with words between blanks."""


class Flag(FlagFile):  # type: ignore[misc]  # cgroupspy has no types
    """A file that holds 0 or 1."""


class Files(Controller):  # type: ignore[misc]  # cgroupspy has no types
    """The files of one cgroup."""

    controllers = Words("cgroup.controllers", readonly=True)
    subtree_control = Words("cgroup.subtree_control")
    events = Flat("cgroup.events", readonly=True)
    kill = Flag("cgroup.kill", writeonly=True)
    freeze = Flag("cgroup.freeze")

    cpu_stat = Flat("cpu.stat", readonly=True)
    memory_current = Number("memory.current", readonly=True)
    memory_peak = Number("memory.peak")
    swap_peak = Number("memory.swap.peak")
    memory_events = Flat("memory.events", readonly=True)
    memory_events_local = Flat("memory.events.local", readonly=True)
    pids_current = Number("pids.current", readonly=True)
    pids_peak = Number("pids.peak", readonly=True)
    io_stat = Nested("io.stat", readonly=True)
    cpu_pressure = Nested("cpu.pressure")
    memory_pressure = Nested("memory.pressure")
    io_pressure = Nested("io.pressure")

    def get_property(self, filename: str) -> str:
        """The text of a file, without blanks at its ends. Raises OSError."""
        return read_text(self.filepath(filename))

    def set_property(self, filename: str, value: Any) -> None:
        """One write(2) a line, and no file is ever made. Raises OSError; not every earlier line is undone."""
        for line in str(value).split("\n"):
            write_line(self.filepath(filename), line)

    def filepath(self, filename: str | bytes) -> str:
        """The full path of a file; cgroupspy keeps the names of its descriptors as bytes."""
        return f"{self.node.directory}/{os.fsdecode(filename)}"

    def look(self, attribute: str) -> Any:
        """A descriptor's value, or None where this kernel or this cgroup has no such file."""
        try:
            return getattr(self, attribute)
        except OSError as e:
            if e.errno in _ABSENT:
                return None
            raise


class Cgroup(Node):  # type: ignore[misc]  # cgroupspy has no types
    """One cgroup directory, named by its full path."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.directory: Final = path

    def _get_controller_type(self) -> None:
        return None

    def _get_controller(self) -> Files:
        return Files(self)

    @property
    def files(self) -> Files:
        """Its interface files."""
        files: Files = self.controller
        return files


def read_text(path: str) -> str:
    """The text of an interface file, without blanks at its ends. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, _CHUNK):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return _text(b"".join(chunks))


def read_value(path: str) -> str:
    """The same of a file that the kernel shows in one piece, as all that hold limits: with one system call less."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _shown(fd)
    finally:
        os.close(fd)


def read_some(path: str) -> str:
    """The same of a file that somebody else named. Raises OSError, also EFBIG for one with more than 64 KiB."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.pread(fd, _CHUNK + 1, 0)
    finally:
        os.close(fd)
    if len(found) > _CHUNK:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return _text(found)


def write_line(path: str, line: str) -> None:
    """One write(2) to an existing interface file. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def exchange_line(path: str, line: str) -> str:
    """One write(2) to an existing interface file that holds a limit, and what it shows afterwards. Raises OSError."""
    with opened(path) as file:
        file.write(line)
        return file.read()


class Opened:
    """An interface file that holds a limit, open for reading and writing."""

    def __init__(self, fd: int) -> None:
        self._fd: Final = fd

    def read(self) -> str:
        """What it shows now, without blanks at its ends. Raises OSError."""
        return _shown(self._fd)

    def write(self, line: str) -> None:
        """Puts a line there, all at once. Raises OSError."""
        os.write(self._fd, line.encode())


@contextlib.contextmanager
def opened(path: str) -> Iterator[Opened]:
    """An existing file, for several of these with one open(2). Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield Opened(fd)
    finally:
        os.close(fd)


def _shown(fd: int) -> str:
    """A file with one record: the kernel's buffer grows until that fits (seq_read_iter() in fs/seq_file.c, Linux 6.1),
    so a read that does not fill ours has it all. Lists, as cgroup.procs, have a record for each line.
    """
    found = chunk = os.pread(fd, _CHUNK, 0)
    while len(chunk) == _CHUNK:
        chunk = os.pread(fd, _CHUNK, len(found))
        found += chunk
    return _text(found)


def _text(read: bytes) -> str:
    return read.decode(errors="surrogateescape").strip()


@contextlib.contextmanager
def cgroup_errors(
    what: str, path: str, value: str | None = None, remedy: str | None = None
) -> Iterator[None]:
    """Turns an OSError of the block into a CgroupError that says what failed, where, and what helps."""
    try:
        yield
    except OSError as e:
        cause, cure = _KNOWN.get(e.errno or 0, (None, None))
        raise CgroupError(
            what, path=path, value=value, errno=e.errno, cause=cause, remedy=remedy or cure
        ) from e


_KNOWN: Final = {
    errno.EROFS: (
        "the cgroup file system is mounted read-only",
        "Remount it (mount -o remount,rw /sys/fs/cgroup), or start the container with a writable cgroup mount.",
    ),
    errno.EACCES: (
        "this user may not write there",
        "Run as root, or in a cgroup delegated to you: systemd-run --user --scope -p Delegate=yes swarmcg …",
    ),
    errno.EPERM: ("this user may not do that", "Run as root."),
    errno.EAGAIN: (  # cgroup_mkdir() in kernel/cgroup/cgroup.c, Linux 6.1
        "a limit on descendants or depth of an ancestor is reached",
        "Raise cgroup.max.descendants or cgroup.max.depth of the ancestors.",
    ),
    errno.ENOENT: ("there is no such file on this host", "Leave it out, or use a kernel that has it."),
    errno.EINVAL: (
        "the kernel does not accept this value",
        "See Documentation/admin-guide/cgroup-v2.rst for what it takes.",
    ),
    errno.ERANGE: ("the value is out of the range that the kernel accepts", "Use a smaller one."),
    errno.EBUSY: ("it is in use", "End what still lives in it."),
    errno.ENODEV: ("the kernel knows no such device", "Name a whole disk by its MAJ:MIN, as lsblk shows it."),
}
