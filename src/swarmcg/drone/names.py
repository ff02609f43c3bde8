"""Names of work directories: short, since bots make Unix sockets below them, and yet to be told apart by eye."""

import re
import secrets
from collections.abc import Callable
from typing import Final

__all__ = ["abbreviate_bot_id", "is_directory_name", "is_made_beside", "new_directory_name"]

_TRAILING_NUMBER: Final = re.compile(r"[0-9]+[A-Za-z]?\Z")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_RANDOM: Final = "abcdefghijklmnopqrstuvwxyz234567"
_RANDOM_LENGTH: Final = 8
_DIRECTORY: Final = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]*\.[{_RANDOM}]{{{_RANDOM_LENGTH}}}")


def abbreviate_bot_id(bot_id: str, length: int = 20) -> str:
    """The id in at most ``length`` characters, without a bound when that is 0 or less.

    Without a dash, its first characters. With dashes, each word between them becomes its first character and the
    number at its end (digits, then at most one letter), a word that is only such a number stays whole, and the
    result is cut: ``chromeos256-column8888`` becomes ``c256-c8888``. Different ids can have the same abbreviation,
    and it is no file name: an id may have a slash. Raises nothing.
    """
    short = "-".join(map(_abbreviate_word, bot_id.split("-"))) if "-" in bot_id else bot_id
    return short[:length] if length > 0 else short


def _abbreviate_word(word: str) -> str:
    number = _TRAILING_NUMBER.search(word)
    if number is None:
        return word[:1]
    return word if number.start() == 0 else word[0] + number[0]


def new_directory_name(bot_id: str) -> str:
    """``<abbreviated id>.<random>`` for one start: at most 29 bytes, and one name on every file system, whatever
    the id.

    The random part has 40 bits, so that no two starts share a name.
    """
    safe = _UNSAFE.sub("_", abbreviate_bot_id(bot_id))
    if safe.startswith("."):
        safe = f"_{safe[1:]}"  # neither hidden nor a step up
    return f"{safe}.{''.join(secrets.choice(_RANDOM) for _ in range(_RANDOM_LENGTH))}"


def is_directory_name(name: str) -> bool:
    """Whether :func:`new_directory_name` can have made this name."""
    return _DIRECTORY.fullmatch(name) is not None


def is_made_beside(name: str) -> Callable[[str], bool]:
    """Whether a name is that of what is made beside a work directory of this name: its log, its drain file, and what
    :mod:`swarmcg.drone.removal` renames, of which a killed program leaves something.
    """
    made = re.compile(rf"{re.escape(name)}(\.log|\.drain|(\.log|\.drain)?\.[0-9a-f]{{8}}\.gone)")
    return lambda other: made.fullmatch(other) is not None
