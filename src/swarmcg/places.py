"""Where swarmcg keeps its state, its sockets and its downloads: for root below /var and /run, else in the
user's directories.
"""

import os
import sys
from typing import Final

import msgspec

__all__ = ["Places", "places"]

_ROOT: Final = {"STATE": "/var/lib/swarmcg", "RUNTIME": "/run/swarmcg", "CACHE": "/var/cache/swarmcg"}
_USER: Final = {"STATE": "~/.local/state", "RUNTIME": "/tmp", "CACHE": "~/.cache"}  # noqa: S108  the last resort of the XDG specification
_XDG: Final = {"STATE": "XDG_STATE_HOME", "RUNTIME": "XDG_RUNTIME_DIR", "CACHE": "XDG_CACHE_HOME"}


class Places(msgspec.Struct, frozen=True):
    """Three directories; none of them need exist yet."""

    state: str
    runtime: str
    cache: str

    @property
    def reports(self) -> str:
        """The journal of exit reports, one JSON object a line."""
        return f"{self.state}/reports.jsonl"


def places() -> Places:
    """The places of this user; SWARMCG_STATE_DIR, SWARMCG_RUNTIME_DIR and SWARMCG_CACHE_DIR override them."""
    return Places(_place("STATE"), _place("RUNTIME"), _place("CACHE"))


def _place(kind: str) -> str:
    told = os.environ.get(f"SWARMCG_{kind}_DIR")
    if told:
        return os.path.abspath(told)
    if sys.platform != "win32" and os.geteuid() == 0:
        return _ROOT[kind]
    base = os.environ.get(_XDG[kind])
    if base and os.path.isabs(base):
        return os.path.join(base, "swarmcg")
    return os.path.join(os.path.expanduser(_USER[kind]), _shared() if kind == "RUNTIME" else "swarmcg")


def _shared() -> str:
    """A name in a place of all users."""
    if sys.platform == "win32":
        return "swarmcg"
    return f"swarmcg-{os.geteuid()}"
