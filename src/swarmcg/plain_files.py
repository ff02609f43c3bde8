"""Opening files in directories that a bot may write to: no link is followed and no pipe waited for."""

import os
import sys
from typing import Final

__all__ = ["APPEND", "CREATE", "let_block"]

if sys.platform == "win32":
    # Without O_BINARY Windows writes every line end as two characters. What is no constant elsewhere is 0 here.
    _GUARDED: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)

    def let_block(_fd: int) -> None:
        """Nothing to do: it was opened to block."""

else:
    _GUARDED: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

    def let_block(fd: int) -> None:
        """Lets reads and writes wait again, which the opening must not."""
        os.set_blocking(fd, True)


CREATE: Final[int] = os.O_WRONLY | os.O_CREAT | _GUARDED
"""Flags for os.open: made if it is missing."""

APPEND: Final[int] = CREATE | os.O_APPEND
"""The same, to write at the end only."""
