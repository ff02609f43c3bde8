"""What systemd gives: a transient scope for a process, and the names of what its managers do not hand down.

A manager is spoken to on its private socket, as systemctl does it: that is there whenever the manager is, while
a user's message bus is not on a stock Debian server (dbus-user-session is optional). It takes one call and one
signal: nobody need be greeted or subscribed to there (``bus_foreach_bus`` in systemd 252 and 257 sends to every
direct connection).
"""

import os
import re
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from swarmcg.errors import HomeError
from swarmcg.resources import Lack

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

if TYPE_CHECKING:
    import socket

    from jeepney import Message

__all__ = [
    "MANAGED",
    "Manager",
    "delegate_request",
    "lack",
    "manager",
    "new_scope_name",
    "start_request",
    "transient_scope",
    "unit_is_delegated",
]

MANAGED: Final = frozenset({"cpu", "cpuset", "io", "memory", "pids"})
"""The controllers that systemd hands down by Delegate=; it leaves hugetlb, rdma and misc alone (252 and 257)."""

_SCOPE: Final = re.compile(r"swarmcg-\d+-[0-9a-f]{8}\.scope")
_WITHIN_S: Final = 30.0
_DROP_IN: Final = "/etc/systemd/system/user@.service.d/delegate.conf"
_SYSTEMD: Final = "org.freedesktop.systemd1"
_OBJECT: Final = "/org/freedesktop/systemd1"
_SERIAL: Final = 1
_UNLIMITED: Final = (1 << 64) - 1


class Manager(msgspec.Struct, frozen=True, kw_only=True):
    """A manager of systemd: the system's, or one user's.

    ``socket`` is where it listens, ``top`` the cgroup that it was given, ``slice`` the slice unit in which scopes
    of ours are made, a child of ``top``.
    """

    socket: str
    top: str
    slice: str

    @property
    def directory(self) -> str:
        """The cgroup of that slice."""
        return f"{self.top}/{self.slice}"

    def scopes(self) -> list[str]:
        """The cgroups of all transient scopes of ours that exist now."""
        try:
            names = sorted(os.listdir(self.directory))
        except (FileNotFoundError, PermissionError):
            return []
        return [f"{self.directory}/{name}" for name in names if _SCOPE.fullmatch(name)]

    def offered(self, controllers: frozenset[str], handed_down: frozenset[str]) -> frozenset[str]:
        """What a delegated scope gets of the manager's own ``controllers``, where the slice has ``handed_down``."""
        return (controllers & MANAGED) | (handed_down - MANAGED)


def manager(mount: str) -> Manager:
    """The manager of this process's user: for root the system's, which speaks to nobody else there."""
    uid = os.geteuid()
    if uid == 0:
        return Manager(socket="/run/systemd/private", top=mount, slice="system.slice")
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    top = f"{mount}/user.slice/user-{uid}.slice/user@{uid}.service"
    return Manager(socket=f"{runtime}/systemd/private", top=top, slice="app.slice")


def new_scope_name() -> str:
    """A name that no other scope of this boot has."""
    return f"swarmcg-{os.getpid()}-{secrets.token_hex(4)}.scope"


def start_request(name: str, slice_unit: str, pid: int) -> "Message":
    """The call that makes a delegated scope with this process in it (org.freedesktop.systemd1(5))."""
    from jeepney import DBusAddress, new_method_call  # noqa: PLC0415  only where systemd is asked

    address = DBusAddress(_OBJECT, _SYSTEMD, f"{_SYSTEMD}.Manager")
    properties = [
        ("Description", ("s", "A bot or command in the care of swarmcg")),
        ("Slice", ("s", slice_unit)),
        ("Delegate", ("b", True)),
        (
            "TasksMax",
            ("t", _UNLIMITED),
        ),  # limits are ours to set; the default is 15 % of what the host can have
        ("CollectMode", ("s", "inactive-or-failed")),
        ("PIDs", ("au", [pid])),
    ]
    return new_method_call(address, "StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "fail", properties, []))


def delegate_request(unit: str) -> "Message":
    """The call that reads whether a scope or service has ``Delegate=yes``."""
    from jeepney import DBusAddress, new_method_call  # noqa: PLC0415  only where systemd is asked

    # sd_bus_path_encode(3): what is no letter or digit becomes _ and two hexadecimal digits.
    escaped = re.sub(r"[^A-Za-z0-9]|^[0-9]", lambda found: f"_{ord(found[0]):02x}", unit)
    address = DBusAddress(f"{_OBJECT}/unit/{escaped}", _SYSTEMD, "org.freedesktop.DBus.Properties")
    kind = unit.rpartition(".")[2].capitalize()
    return new_method_call(address, "Get", "ss", (f"{_SYSTEMD}.{kind}", "Delegate"))


def unit_is_delegated(who: Manager, unit: str, *, within: float = _WITHIN_S) -> bool:
    """Whether the manager says that a unit of its was delegated; False where it cannot be asked.

    For a user's units there is no other sign: systemd 252 puts no attribute on their cgroups.
    """
    if not unit.endswith((".scope", ".service")):
        return False
    try:
        with _connected(who, within) as connection:
            (_, value), *_ = _Talk(connection, within).ask(delegate_request(unit))
    except (OSError, HomeError):
        return False
    return value is True


def transient_scope(who: Manager, *, within: float = _WITHIN_S) -> str:
    """Moves this process into a new scope that was delegated to it; the name of the scope.

    Returns when systemd says that the job is done; the connection is closed then. Raises HomeError, also when that
    takes more than ``within`` seconds.
    """
    name = new_scope_name()
    try:
        with _connected(who, within) as connection:
            _Talk(connection, within).start(start_request(name, who.slice, os.getpid()))
    except FileNotFoundError as e:
        raise _no_manager(who, e) from e
    except OSError as e:  # TimeoutError is one
        raise HomeError(
            "systemd made no scope for this process",
            path=who.socket,
            errno=e.errno,
            cause=str(e) if e.errno is None else None,
            remedy=f"See what the manager does: {_systemctl()} status; or name a home with --home.",
        ) from e
    return name


def _connected(who: Manager, within: float) -> "socket.socket":
    from jeepney.io.blocking import prep_socket  # noqa: PLC0415  only where systemd is asked

    connection: socket.socket = prep_socket(who.socket, timeout=within)
    return connection


class _Talk:
    """One call over a connection that serves nothing else, and the end of the job that it may start."""

    def __init__(self, connection: "socket.socket", within: float) -> None:
        from jeepney import Parser  # noqa: PLC0415  only where systemd is asked

        self._connection: Final = connection
        self._parser: Final = Parser()
        self._end: Final = time.monotonic() + within
        self._results: Final[dict[str, str]] = {}

    def start(self, request: "Message") -> None:
        """Makes the call and waits for its job. Raises HomeError when it is refused or fails, TimeoutError."""
        (job,) = self.ask(request)
        while job not in self._results:
            self._note(self._next())
        if self._results[job] != "done":
            raise _refused(f"the job's result is {self._results[job]!r}")

    def ask(self, request: "Message") -> tuple[Any, ...]:
        """Makes the call; what it gives. Raises HomeError when it is refused, TimeoutError."""
        from jeepney import HeaderFields, MessageType  # noqa: PLC0415  only where systemd is asked

        self._connection.sendall(request.serialise(serial=_SERIAL))
        while True:
            message = self._next()
            if message.header.fields.get(HeaderFields.reply_serial) != _SERIAL:
                self._note(message)  # a job can end before its call is answered
                continue
            body: tuple[Any, ...] = message.body
            if message.header.message_type is MessageType.error:
                raise _refused(": ".join([message.header.fields[HeaderFields.error_name], *map(str, body)]))
            return body

    def _note(self, message: "Message") -> None:
        """Remembers the result if this is the end of any job."""
        from jeepney import HeaderFields  # noqa: PLC0415  only where systemd is asked

        if message.header.fields.get(HeaderFields.member) == "JobRemoved":
            _, job, _, result = message.body
            self._results[job] = result

    def _next(self) -> "Message":
        while (message := self._parser.get_next_message()) is None:
            self._connection.settimeout(max(self._end - time.monotonic(), 0.001))  # 0 would not wait at all
            try:
                data = self._connection.recv(4096)
            except TimeoutError:
                raise TimeoutError("it did not answer in time") from None
            if not data:
                raise ConnectionResetError("it hung up")
            self._parser.add_data(data)
        return message


def _refused(why: str) -> HomeError:
    return HomeError(
        "systemd made no scope for this process",
        cause=why,
        remedy=f"See its own words: journalctl{'' if os.geteuid() == 0 else ' --user'} -n 20; "
        "or name a home with --home.",
    )


def _no_manager(who: Manager, error: OSError) -> HomeError:
    if os.geteuid() == 0:
        remedy = "Start swarmcg where the system's manager can be reached, or name a home with --home."
    else:
        remedy = (
            "Log in by a way that pam_systemd sees (ssh, a console), or: sudo loginctl enable-linger $USER"
        )
    return HomeError(
        "No manager of systemd runs for this user, so that no cgroup can be delegated to it",
        path=who.socket,
        errno=error.errno,
        remedy=remedy,
    )


def _systemctl() -> str:
    return "systemctl" if os.geteuid() == 0 else "systemctl --user"


def lack(controller: str, mount: str, source: str, first: str) -> Lack:
    """Why a controller that the kernel has does not reach ``source``, on a host that systemd manages, and the cure.

    ``first`` is the first directory on the way down from ``mount`` that keeps it.
    """
    why = f"{first} does not hand the {controller} controller down"
    if controller not in MANAGED:
        directories = _above(mount, source)
        return Lack(
            why=f"{why}, and systemd does not manage it",
            remedy=f"As root: for d in {' '.join(directories)}; "
            f"do echo +{controller} > $d/cgroup.subtree_control; done",
        )
    if re.search(r"/user@\d+\.service(/|$)", source):
        return Lack(
            why=f"{why}: the user manager was not given it",
            remedy=f"As root: mkdir -p {os.path.dirname(_DROP_IN)}; "
            rf"printf '[Service]\nDelegate=cpu cpuset io memory pids\n' > {_DROP_IN}; systemctl daemon-reload; "
            f"systemctl restart user@{_uid(source)}.service (this ends what runs in it)",
        )
    return Lack(
        why=why,
        remedy="Have it delegated: Delegate=yes in the unit, or systemd-run --scope -p Delegate=yes …",
    )


def _uid(source: str) -> str:
    found = re.search(r"/user@(\d+)\.service", source)
    return found[1] if found else ""


def _above(mount: str, source: str) -> list[str]:
    """The directories that must hand a controller down for ``source`` to have it, from the top."""
    found = [mount]
    for part in os.path.relpath(os.path.dirname(source), mount).split("/"):
        if part != ".":
            found.append(f"{found[-1]}/{part}")
    return found
