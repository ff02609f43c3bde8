"""The words of the domain: a bot, how it is configured, and the report of its end."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, runtime_checkable

import msgspec

from swarmcg.errors import ConfigError, SwarmcgError
from swarmcg.fields import check_count, check_environment, check_names, check_path

__all__ = [
    "GRACE_INTERVAL",
    "Bandwidth",
    "Bot",
    "Config",
    "Cpu",
    "Drain",
    "Evidence",
    "ExitReport",
    "Io",
    "Leftovers",
    "OnUnenforceable",
    "Pressure",
    "Reason",
    "Resources",
    "Row",
    "Stall",
    "StartedBot",
    "check_bot_id",
    "check_grace",
    "default_policy",
    "is_interface_name",
]

GRACE_INTERVAL: Final[float] = 180.0
"""How long a terminated bot may take before its slice is killed, in seconds: the 3 minutes of the Go
original.
"""

MAX_BOT_ID_BYTES: Final = 200

OnUnenforceable = Literal["refuse", "report"]
Drain = Literal["file", "sigterm", "file+sigterm"] | Sequence[str]
Evidence = Literal["kmsg", "counter", "none"]
Reason = Literal[
    "start-interrupted",
    "unobserved",
    "oom-own-limit",
    "oom-ancestor",
    "oom-host",
    "killed-after-grace",
    "terminated",
    "signaled",
    "exited",
]


def default_policy() -> OnUnenforceable:
    """Fail closed where limits can be had at all."""
    return "refuse" if sys.platform == "linux" else "report"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``swarmcg explain``: what becomes of one field of the resources.

    ``field`` is the OCI path (``memory.limit``); ``file`` the cgroup file, None for what is no file;
    ``value`` what is written there; ``why`` the rule behind it; ``remedy`` what would make it enforceable,
    None where it is.
    """

    field: str
    file: str | None
    value: str | None
    why: str
    enforceable: bool
    remedy: str | None = None


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """Processor time of the whole slice in seconds; ``throttled_s`` is the time spent waiting for quota."""

    user_s: float | None = None
    system_s: float | None = None
    throttled_s: float | None = None


class Io(msgspec.Struct, frozen=True, kw_only=True):
    """Block I/O of the whole slice, summed over all devices."""

    read_bytes: int | None = None
    write_bytes: int | None = None
    read_ops: int | None = None
    write_ops: int | None = None


class Stall(msgspec.Struct, frozen=True, kw_only=True):
    """Time in seconds that some or all tasks of the slice were stalled (pressure stall information)."""

    some_s: float | None = None
    full_s: float | None = None


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """Stalls by resource."""

    cpu: Stall = Stall()
    memory: Stall = Stall()
    io: Stall = Stall()


class Leftovers(msgspec.Struct, frozen=True, kw_only=True):
    """Processes that the final kill found alive: how many, and their distinct command names (32 at most)."""

    count: int = 0
    names: tuple[str, ...] = ()


class ExitReport(msgspec.Struct, frozen=True, kw_only=True):
    """Why a bot ended, on what evidence, and what it used. Unknown is None, never 0.

    ``duration_s`` and all times are seconds, sizes bytes. ``limits`` maps files of the slice to the values
    that were in force, as read back from the kernel; ``unenforced`` lists what was asked for and was not.
    """

    bot_id: str
    incarnation: str
    reason: Reason
    reason_evidence: Evidence = "none"
    exit_code: int | None = None
    signal: int | None = None
    started_at: str | None = None
    duration_s: float | None = None
    cpu: Cpu = Cpu()
    memory_peak_bytes: int | None = None
    swap_peak_bytes: int | None = None
    io: Io = Io()
    pids_peak: int | None = None
    oom_kills: int | None = None
    pressure: Pressure = Pressure()
    leftovers: Leftovers = Leftovers()
    limits: dict[str, str] = {}
    unenforced: tuple[Row, ...] = ()
    schema_version: int = 1

    def to_json(self) -> bytes:
        """The report as one line of JSON without a line end."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> "ExitReport":
        """The report that :meth:`to_json` wrote. Raises msgspec.ValidationError for anything else."""
        return msgspec.json.decode(text, type=cls)


def check_bot_id(bot_id: object) -> str:
    """The id itself if it is one: non-empty valid UTF-8 text without NUL of at most 200 bytes; else
    ConfigError.
    """
    if not isinstance(bot_id, str):
        raise ConfigError(f"The bot id is not text: {bot_id!r}", remedy="Give the id as a str.")
    try:
        size = len(bot_id.encode())
    except UnicodeEncodeError as e:
        raise ConfigError(
            "The bot id is not valid UTF-8 text",
            value=bot_id,
            cause=f"character {e.start} has no UTF-8 form",
            remedy="Use an id that the server can send.",
        ) from None
    if size == 0:
        raise ConfigError("The bot id is empty", value="", remedy="Every bot needs an id of its own.")
    if "\0" in bot_id:
        raise ConfigError(
            "The bot id has a NUL character",
            value=bot_id,
            cause="neither an environment variable nor a path can hold NUL",
            remedy="Use an id without it.",
        )
    if size > MAX_BOT_ID_BYTES:
        raise ConfigError(
            "The bot id is too long",
            value=bot_id,
            cause=f"it has {size} bytes, and {MAX_BOT_ID_BYTES} are allowed",
            remedy="Use a shorter id.",
        )
    return bot_id


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a bot may send and receive through one network interface, in bytes (not bits) a second.

    OCI has no word for it, so it stands beside the resources. What is sent is delayed (``egress_bps``); that
    takes the interface's root qdisc, which must be nobody's yet. What is received faster than ``ingress_bps``
    is dropped. ``interface`` is a name as in ``ip link``; None stands for the one of the default route.

    Raises ConfigError for a rate outside of 1024 to 4294967295, for no rate, and for what is no name.
    """

    egress_bps: int | None = None
    ingress_bps: int | None = None
    interface: str | None = None

    def __post_init__(self) -> None:
        for name in ("egress_bps", "ingress_bps"):
            _check_rate(f"bandwidth.{name}", getattr(self, name))
        if self.egress_bps is None and self.ingress_bps is None:
            raise ConfigError(
                "A bandwidth without a rate limits nothing",
                path="bandwidth",
                value=self.interface,
                remedy="Give egress_bps, ingress_bps or both, or no bandwidth.",
            )
        if self.interface is not None and not is_interface_name(self.interface):
            raise ConfigError(
                f"No network interface is named {self.interface!r}",
                path="bandwidth.interface",
                remedy="Use a name from `ip link`.",
            )


_RATES: Final = range(1024, 1 << 32)  # of HTB's 32 bits; below, one packet would take longer than a second


def _check_rate(field: str, rate: object) -> None:
    if rate is None or (isinstance(rate, int) and not isinstance(rate, bool) and rate in _RATES):
        return
    raise ConfigError(
        f"{field} cannot be used",
        path=field,
        value=rate if isinstance(rate, int | float) else repr(rate),
        cause=f"it is a whole number of bytes a second from {_RATES.start} to {_RATES.stop - 1}",
        remedy="Give one, or leave it out for no limit.",
    )


_LONGEST_INTERFACE: Final = 15


def is_interface_name(name: object) -> bool:
    """Whether the kernel lets an interface have this name (dev_valid_name in net/core/dev.c, Linux 6.1)."""
    return (
        isinstance(name, str)
        and name not in {"", ".", ".."}
        and len(name.encode(errors="replace")) <= _LONGEST_INTERFACE
        and not any(c in "/:" or c.isspace() or not c.isprintable() for c in name)
    )


class Resources(Protocol):
    """What this module needs to know of :class:`swarmcg.LinuxResources`, the one class that a bot's resources have."""

    def to_json(self) -> bytes:
        """The OCI object as JSON."""
        ...


class _Asked(msgspec.Struct, frozen=True):
    """The fields of Config that may be given by position; msgspec makes a subclass's own keyword-only."""

    bot_id: str
    work_directory: str | os.PathLike[str]
    resources: Resources | None = None
    python_version: str | os.PathLike[str] = "python3"


class Config(_Asked, frozen=True, kw_only=True):
    """What is wanted of one bot.

    ``bot_id`` is any non-empty UTF-8 text without NUL, at most 200 bytes. ``work_directory`` must exist when
    the bot is started and be at most ``work_directory_limit`` bytes long, since the bot makes Unix sockets in
    it; its log is ``<work_directory>.log``, its drain file ``<work_directory>.drain``. ``python_version`` is
    a command (``python3``) or a path. ``grace_interval`` is in seconds. ``drain`` says how the bot is asked
    to finish its task: ``file``, ``sigterm`` (to the main process alone), ``file+sigterm``, or a command.
    ``env`` is added to the bot's environment. ``on_unenforceable`` says what happens when a limit cannot be
    put in force: ``refuse`` or ``report``; None means ``refuse`` on Linux and ``report`` elsewhere.
    ``lenient`` names fields, as in ``memory.swap``, whose lack is reported under either policy. ``bandwidth``
    limits what is sent and received.

    Raises ConfigError when a value makes no sense by itself; the file system is looked at when the bot is
    started.
    """

    grace_interval: float = GRACE_INTERVAL
    drain: Drain = "file+sigterm"
    env: Mapping[str, str] = {}
    on_unenforceable: OnUnenforceable | None = None
    lenient: frozenset[str] = frozenset()
    work_directory_limit: int = 60
    bandwidth: Bandwidth | None = None

    def __post_init__(self) -> None:
        check_bot_id(self.bot_id)
        check_grace(self.grace_interval)
        _check_drain(self.drain)
        check_path("work_directory", self.work_directory)
        check_path("python_version", self.python_version)
        check_environment("env", self.env)
        check_names("lenient", self.lenient)
        check_count("work_directory_limit", self.work_directory_limit)
        if not isinstance(self.bandwidth, Bandwidth | None):
            raise ConfigError(
                f"bandwidth is no Bandwidth: {self.bandwidth!r}",
                path="bandwidth",
                remedy="Make one: Bandwidth(egress_bps=1_250_000).",
            )
        if self.on_unenforceable not in (None, "refuse", "report"):
            raise ConfigError(
                f"on_unenforceable is neither 'refuse' nor 'report': {self.on_unenforceable!r}",
                path="on_unenforceable",
                remedy="Use 'refuse' to fail when a limit cannot be enforced, 'report' to start all the same.",
            )


def check_grace(seconds: object) -> float:
    """The number of seconds itself if it is one that can be waited for; else ConfigError."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ConfigError(
            f"The grace period is not a number: {seconds!r}", remedy="Give it in seconds, as in 180."
        )
    if not 0 <= seconds <= _LONGEST_GRACE:
        raise ConfigError(
            "The grace period is out of range",
            value=seconds,
            cause="it is a number of seconds from 0 to 7 days",
            remedy=f"Leave it at the default of {GRACE_INTERVAL:.0f} seconds, or give one in this range.",
        )
    return float(seconds)


def _check_drain(drain: object) -> None:
    if drain in {"file", "sigterm", "file+sigterm"} if isinstance(drain, str) else _is_command(drain):
        return
    raise ConfigError(
        f"The way to drain is unknown: {drain!r}",
        cause="it is 'file', 'sigterm', 'file+sigterm', or a command as a list of words",
        remedy="Use one of these.",
    )


def _is_command(words: object) -> bool:
    return (
        isinstance(words, Sequence) and bool(words) and all(isinstance(word, str) and word for word in words)
    )


_LONGEST_GRACE: Final = 7 * 24 * 3600


@runtime_checkable
class Bot(Protocol):
    """A started bot. Every method may be called from any thread, at any time, any number of times."""

    def wait(self, timeout: float | None = None) -> ExitReport:
        """Blocks until the bot is proven gone and returns the report of its end, the same one every time.

        Raises WaitTimeout (also a TimeoutError) when ``timeout`` seconds pass first; the bot goes on then.
        """
        ...

    def drain(self, deadline: float | None = None) -> None:
        """Asks the bot to finish its task and end. Returns at once.

        With a ``deadline`` in seconds, a bot that has not ended by then is terminated. Harmless after the
        end.
        """
        ...

    def terminate_or_kill(self, grace: float | None = None) -> None:
        """Sends SIGTERM to every process of the bot and, when the grace period is over, kills all that is
        left.

        Blocks until the bot is proven gone. ``grace`` is in seconds (None: the one it was configured with). A
        concurrent call with a smaller grace shortens the period; after the end it returns at once. Raises
        StuckError when processes survive even the kill.
        """
        ...

    def update(self, resources: Resources) -> None:
        """Changes the limits that the resources name, while the bot runs; all of them, or none.

        Returns when they are in force. Every other limit stays, the unnamed half of quota and period too, and
        a frozen bot stays frozen. Safe against updates by others, also from other processes.

        Raises ResourcesError for what makes no sense, UnenforceableError for what this host cannot put in
        force (by the bot's policy), UpdateError when the bot has ended or the kernel refused: every value is
        as it was then, unless the error's ``in_force`` says otherwise.
        """
        ...


class StartedBot(Bot, Protocol):
    """A :class:`Bot` that a :class:`swarmcg.Starter` started, with what is known of it beyond the protocol."""

    @property
    def bot_id(self) -> str:
        """The id that it was configured with."""
        ...

    @property
    def pid(self) -> int:
        """Its main process, the same one through all updates of itself."""
        ...

    @property
    def incarnation(self) -> str:
        """The name of this life of it, by which its report is known."""
        ...

    @property
    def slice(self) -> str | None:
        """Its cgroup's directory; None where there are no cgroups."""
        ...

    @property
    def trouble(self) -> SwarmcgError | None:
        """What went wrong after its end: its report could not be kept, or its slice not be removed."""
        ...

    def terminate(self, grace: float | None = None) -> None:
        """Starts what :meth:`terminate_or_kill` does, and returns at once. Raises ConfigError for a bad grace."""
        ...
