"""The errors of swarmcg: each says what failed, why, and what mends it.

Every error carries its facts as attributes, for programs, and in its text, for people. The text has up to
three lines: what failed, why, and the cure. All of them can be caught as :class:`SwarmcgError`.
"""

import errno as _errno
import os
from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "BotCodeError",
    "CgroupError",
    "ConfigError",
    "HomeError",
    "NetworkError",
    "OwnerLostError",
    "ResourcesError",
    "StartError",
    "StateError",
    "StuckError",
    "SwarmcgError",
    "UnenforceableError",
    "UpdateError",
    "WaitTimeout",
    "from_dict",
    "printable",
]


class SwarmcgError(Exception):
    """What failed, why, and the cure.

    ``what`` is a sentence without a full stop. ``path`` is the file, directory, URL or field it is about;
    ``value`` the offending value; ``errno`` the kernel's answer as a number; ``cause`` the reason in words;
    ``remedy`` what the reader can do. Whatever is not known is None.
    """

    def __init__(
        self,
        what: str,
        *,
        path: str | os.PathLike[str] | None = None,
        value: object = None,
        errno: int | None = None,
        cause: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what: Final = what
        self.path: Final = None if path is None else os.fspath(path)
        self.value: Final = value
        self.errno = errno
        self.cause: Final = cause
        self.remedy: Final = remedy

    def __str__(self) -> str:
        return "\n".join(line for line in (self.headline, self.reason, self.remedy) if line)

    @property
    def headline(self) -> str:
        """What failed, with path and value where the sentence does not name them already."""
        text = printable(self.what)
        if self.path is not None and printable(self.path) not in text:
            text += f" ({printable(self.path)})"
        if isinstance(self.value, str | int | float) and printable(str(self.value)) not in text:
            text += f" (value {printable(repr(self.value))})"
        return text

    @property
    def reason(self) -> str:
        """Why it failed: the cause in words and the kernel's own answer."""
        if self.errno is None:
            return self.cause or ""
        kernel = f"{_errno.errorcode.get(self.errno, self.errno)}: {os.strerror(self.errno)}"
        return f"{self.cause} ({kernel})" if self.cause else kernel

    def to_dict(self) -> dict[str, Any]:
        """The error as plain JSON types, from which :func:`from_dict` makes an equal one in another process."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "path": self.path,
            "value": self.value,
            "errno": self.errno,
            "cause": self.cause,
            "remedy": self.remedy,
        }


class ConfigError(SwarmcgError, ValueError):
    """Something asked for makes no sense: a bot id, a work directory, a time, an option."""


class ResourcesError(ConfigError):
    """The OCI resources are malformed; ``path`` is the field, as in ``memory.limit``."""


class UnenforceableError(SwarmcgError):
    """Limits were asked for that this host cannot put in force, and the policy is to refuse.

    ``value`` holds the rows, as ``swarmcg explain --json`` prints them.
    """


class HomeError(SwarmcgError):
    """There is no cgroup in which slices may be made."""


class CgroupError(SwarmcgError):
    """The kernel refused an operation on a cgroup, or took a value differently than it was written."""


class NetworkError(CgroupError):
    """A limit on the packets of a slice could not be put in force, read back or removed."""


class UpdateError(CgroupError):
    """The limits of a running bot were not changed.

    Every value is as it was before, unless ``in_force`` says otherwise: where putting values back failed too,
    it maps the path of every file that the update touched to what is in force there now.
    """

    def __init__(self, what: str, *, in_force: Mapping[str, str] | None = None, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.in_force: Final = dict(in_force or {})

    def to_dict(self) -> dict[str, Any]:
        """See :meth:`SwarmcgError.to_dict`; with what is in force."""
        return super().to_dict() | {"in_force": self.in_force}


class StartError(SwarmcgError):
    """The command could not be started; ``step`` names what failed in the child (``exec``, ``join``,
    ``setsid``, …).
    """

    def __init__(self, what: str, *, step: str | None = None, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.step: Final = step

    def to_dict(self) -> dict[str, Any]:
        """See :meth:`SwarmcgError.to_dict`; with the step."""
        return super().to_dict() | {"step": self.step}


class BotCodeError(SwarmcgError):
    """The bot's code could not be downloaded, verified or stored; ``status`` is the HTTP status, if there was one."""

    def __init__(self, what: str, *, status: int | None = None, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.status: Final = status

    def to_dict(self) -> dict[str, Any]:
        """See :meth:`SwarmcgError.to_dict`; with the status."""
        return super().to_dict() | {"status": self.status}


class StateError(SwarmcgError):
    """The state directory or a report file cannot be read or written."""


class StuckError(SwarmcgError):
    """Processes survived the kill (state D); ``value`` names them. Their slice stays fenced until they are
    gone.
    """


class OwnerLostError(SwarmcgError):
    """The process that supervised the bot died; the bot is ended by its keeper and reported in the state
    directory.
    """


class WaitTimeout(SwarmcgError, TimeoutError):  # noqa: N818  the name is part of the fixed interface
    """The bot had not ended when the time-out passed. The bot goes on."""


_FAMILY: Final[dict[str, type[SwarmcgError]]] = {
    kind.__name__: kind
    for kind in (
        SwarmcgError,
        ConfigError,
        ResourcesError,
        UnenforceableError,
        HomeError,
        CgroupError,
        NetworkError,
        UpdateError,
        StartError,
        BotCodeError,
        StateError,
        StuckError,
        OwnerLostError,
        WaitTimeout,
    )
}


def from_dict(facts: dict[str, Any]) -> SwarmcgError:
    """The error that :meth:`SwarmcgError.to_dict` described, of the same class; for errors that cross a
    process.
    """
    rest = dict(facts)
    kind = _FAMILY.get(rest.pop("error", ""), SwarmcgError)
    return kind(rest.pop("what"), **rest)


def printable(text: str, most: int = 200) -> str:
    """Text from outside, made safe for a terminal and short enough for one line."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )
    return shown if len(shown) <= most else shown[: most - 1] + "…"
