"""The bots unit as everybody else sees it: where it is, and the way to the process that serves it.

``swarmcg-bots.service`` is a cgroup that systemd delegated, or in tests a plain one. Its processes live in the leaf
``keeper``, its slices in ``bots``. Whoever serves it holds the lock on that leaf, and so does its keeper; a link in
the runtime directory says where the unit is, and a socket beside it takes connections.
"""

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Final

import msgspec

from swarmcg.cgroup.enclosing import enclosing_slice
from swarmcg.cgroup.find import find_homes
from swarmcg.cgroup.hierarchy import look
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.slice import MODE
from swarmcg.errors import HomeError, from_dict
from swarmcg.keeper.wire import Wire
from swarmcg.places import places

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = [
    "Unit",
    "answer",
    "being_stopped",
    "connect",
    "credentials",
    "find_unit",
    "inhabited",
    "may_command",
    "no_unit",
    "put_host",
    "reach",
    "unit_at",
]

_CREDENTIALS: Final = struct.Struct("3i")
_WITHIN_S: Final = 30.0
_LISTENS_S: Final = 5.0
_STEP_S: Final = 0.02
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM: Final = (
    "import sys; {package!r} in sys.path or sys.path.insert(0, {package!r}); "
    "from swarmcg.supervisor.host import serve; serve({fd}, sys.argv[1])"
)
_PASSED_ON: Final = ("SWARMCG_", "XDG_", "LC_", "COVERAGE_")
_PASSED_ON_NAMES: Final = frozenset({"PATH", "HOME", "LANG", "TZ"})


def credentials(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end; of a listener's process, as they were when it began to listen."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def may_command(uid: int) -> bool:
    """Whether that user may have our bots started and ended, and see what we start: root, and our own."""
    return uid in {0, os.geteuid()}


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit by its cgroup's ``directory``; with its ``runtime`` directory and its ``journal`` of reports."""

    directory: str
    runtime: str
    journal: str

    @property
    def leaf(self) -> str:
        """Where its own processes live, and whose lock they hold."""
        return f"{self.directory}/keeper"

    def make_leaf(self) -> None:
        """Makes the leaf if need be; others may not open it, and so not hold its lock."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.leaf, MODE)

    @property
    def home(self) -> Home:
        """Where its slices are."""
        return Home(path=f"{self.directory}/bots", hierarchy=look(), ours=True)

    @property
    def socket(self) -> str:
        """Where it takes connections."""
        return f"{self.runtime}/keeper.sock"

    @property
    def link(self) -> str:
        """The symbolic link to its directory."""
        return f"{self.runtime}/unit"

    def served(self) -> bool:
        """Whether somebody holds its lock."""
        try:
            fd = os.open(self.leaf, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except PermissionError:
            return True  # another user's: whoever serves it says so
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may be looking at the same time
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


def unit_at(directory: str) -> Unit:
    """The unit of this user in that directory, which need not have been served yet."""
    found = places()
    return Unit(directory=directory, runtime=found.runtime, journal=found.reports)


def find_unit() -> Unit | None:
    """The unit of this user that was started and not stopped since; it may have lost all of its processes.

    None for a process that lives in a slice of ours: what it started in the unit would outlive that slice.
    """
    if enclosing_slice(look()) is not None:
        return None
    try:
        directory = os.readlink(unit_at("").link)
    except OSError:
        return None
    unit = unit_at(directory)
    return unit if os.path.isdir(unit.leaf) else None


def inhabited(explicit: str | None) -> list[Home]:
    """Every place where bots of this user may run, the unit's among them; or the one that was named.

    Raises HomeError.
    """
    unit = find_unit() if explicit is None else None
    return [*find_homes(explicit), *([unit.home, *unit.home.inside()] if unit is not None else [])]


def no_unit() -> HomeError:
    """Why nothing can be detached here."""
    outer = enclosing_slice(look())
    if outer is not None:
        return HomeError(
            "A bot cannot be detached from inside of a slice",
            path=outer,
            cause="this process lives in that slice, and what it starts ends with it",
            remedy="Start it without --detach, or from outside of the slice.",
        )
    return HomeError(
        "A bot can be detached only where the bots unit runs",
        path=unit_at("").socket,
        cause="nobody else would keep it once this command has ended",
        remedy=_way_to_a_unit(),
    )


def _way_to_a_unit() -> str:
    if not os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        return "systemd does not run here, which would start that unit: run it in the foreground."
    user = () if os.geteuid() == 0 else ("--user",)
    try:
        asked = ["systemctl", *user, "cat", "swarmcg-bots.service"]
        found = subprocess.run(asked, capture_output=True, check=False, timeout=_LISTENS_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        found = True  # nobody says that it is not
    if not found:
        return (
            "Install swarmcg-bots.service (docs/how-to.md, packaging/systemd), or run it in the foreground."
        )
    return f"{' '.join(('systemctl', *user))} start swarmcg-bots, or run it in the foreground."


def being_stopped() -> HomeError:
    """Why nothing can be started now."""
    return HomeError(
        "Nothing can be started in the bots unit: it is being stopped",
        remedy="systemctl start swarmcg-bots, once it has stopped.",
    )


def reach() -> Wire | None:
    """A connection to this user's unit, None where there is none. Puts a process there that serves it if none does.

    Raises HomeError when the unit cannot be served.
    """
    unit = find_unit()
    return None if unit is None else connect(unit)


def connect(unit: Unit) -> Wire:
    """See :func:`reach`."""
    if not unit.served():
        put_host(unit)
    wire = Wire(_connection(unit))
    try:
        answer(wire)
    except BaseException:
        wire.close()
        raise
    return wire


def _connection(unit: Unit) -> socket.socket:
    """Connects; who has locked the unit a moment ago may not listen yet, and tells nobody but its starter when it
    does.
    """
    connection = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + _LISTENS_S
    try:
        while True:
            try:
                connection.connect(unit.socket)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > end:
                    raise
                time.sleep(_STEP_S)
            else:
                break
        if not may_command(credentials(connection)[1]):
            raise PermissionError(errno.EACCES, "another user listens there")
    except OSError as e:
        connection.close()
        raise HomeError(
            "The bots unit cannot be reached",
            path=unit.socket,
            errno=e.errno,
            remedy="See its state: systemctl status swarmcg-bots; it belongs to root or to the user that started it.",
        ) from e
    return connection


def answer(wire: Wire, within: float = _WITHIN_S) -> dict[str, Any]:
    """The next message of the host. Raises what it says failed, and HomeError when it says nothing."""
    poll = select.poll()
    poll.register(wire.fileno(), select.POLLIN)
    end = time.monotonic() + within
    while not wire.ended and (left := end - time.monotonic()) > 0:
        poll.poll(left * 1000)
        for message, _ in wire.receive():
            if message["event"] == "failed":
                raise from_dict(message["error"])
            return message
    raise HomeError(
        "The bots unit does not answer",
        cause="it hung up" if wire.ended else f"it was waited for {within:.0f} s",
        remedy="See what it says: journalctl -u swarmcg-bots -n 20",
    )


def put_host(unit: Unit) -> None:
    """Starts the process that serves the unit, and returns when it does; harmless when another one does already.

    It takes over every slice that is left in the unit without an owner. Raises HomeError.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        program = _PROGRAM.format(package=_PACKAGE, fd=theirs.fileno())
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", program, msgspec.json.encode(unit).decode()],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # it speaks to the journal
            start_new_session=True,
            cwd="/",
            env={name: value for name, value in os.environ.items() if _passed_on(name)},
        )
    wire = Wire(ours)
    try:
        answer(wire)
    finally:
        wire.close()
        process.wait(_WITHIN_S)  # the one that serves is its child, and nobody's zombie


def _passed_on(name: str) -> bool:
    return name in _PASSED_ON_NAMES or name.startswith(_PASSED_ON)
