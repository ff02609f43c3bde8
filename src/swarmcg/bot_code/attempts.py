"""How the code of a bot is got: from the cache or the server, in bounded attempts."""

import logging
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from swarmcg.bot import check_bot_id
from swarmcg.bot_code.cache import Cache
from swarmcg.errors import BotCodeError, ConfigError

if TYPE_CHECKING:
    import urllib.request

    from swarmcg.bot_code.download import Session

__all__ = ["Limits", "check", "fetch"]

_LOG: Final = logging.getLogger("swarmcg.bot_code")

_MOST_REDIRECTS: Final = 10

_CONTENT_ADDRESSED: Final = re.compile(r"[^?#]*/[0-9a-f]{64}")
"""An address that names its content by a SHA-256, and so never gives anything else."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a download may take. Times are in seconds, sizes in bytes.

    ``connect`` bounds the making of one connection, to each address of the server's name; ``silence`` the
    time in which not one byte comes; ``total`` everything together, waits between attempts included.
    ``attempts`` counts the first one too. The wait before attempt n + 1 is drawn from the upper half of
    ``first_wait`` * 2^(n - 1), at most ``longest_wait``. ``max_bytes`` bounds the zip, ``max_unpacked_bytes``
    the sum of what it says to contain. The cache keeps ``kept`` zips and whatever was used within the last
    hour.

    Raises ConfigError for a limit that is not above 0.
    """

    connect: float = 10.0
    silence: float = 30.0
    total: float = 300.0
    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 30.0
    max_bytes: int = 64 << 20
    max_unpacked_bytes: int = 512 << 20
    kept: int = 8

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(
                    f"The limit {name} of a download is not above 0",
                    value=value,
                    remedy="Leave it at its default, or give a positive number.",
                )


def _chance() -> float:
    """A number from 0 to 1, by chance; the module random takes 10 ms to load."""
    return int.from_bytes(os.urandom(2)) / 0xFFFF


def check(url: str, bot_id: str) -> None:
    """Raises ConfigError for what :func:`fetch` would refuse before it asks anybody: an unusable URL."""
    from swarmcg.bot_code.download import entry_address  # noqa: PLC0415  urllib: 30 ms

    entry_address(url, bot_id)


def fetch(
    url: str,
    bot_id: str,
    cache_directory: str | os.PathLike[str],
    *,
    opener: "urllib.request.OpenerDirector | None" = None,
    limits: Limits = Limits(),  # noqa: B008  immutable
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
    chance: Callable[[], float] = _chance,
) -> str:
    """The path of a verified zip with the code for the bot, in the cache that all bots of the host share.

    Asks ``{url}/bot_code?bot_id=…`` each time, so that the server decides each time whether the bot may have
    the code and which. When it redirects to an address that names its content by a SHA-256, as the stock
    server does, and that address was downloaded before, the zip comes out of the cache. Otherwise it is
    downloaded: an answer without such a redirect costs a download every time. That name is the server's
    version, not the digest of the zip, so it is the server that is trusted for it; what is checked here is
    that the zip is complete, its checksums hold, it is a program (``__main__.py``), and it is byte for byte
    what was downloaded when it comes out of the cache.

    Server errors (5xx) and network errors are tried again, anything else is final. The total time holds
    against a server that sends one byte at a time; only the resolver's own time-outs may add to it. The file
    is not pruned for an hour, so :func:`~swarmcg.bot_code.install` can follow. Any number of processes may do
    this at the same time.

    ``opener`` brings authentication and proxies; without one, urllib's own with the proxies of the
    environment. Redirects are followed here and not by it, to http and https only and never from https back
    to http; its ``Authorization`` and ``Cookie`` in ``addheaders`` go to the server's own origin only.
    ``clock``, ``wait`` and ``chance`` (0 to 1, for the jitter) can be replaced by a test.

    Raises ConfigError for an unusable URL or id, BotCodeError for everything else; then no partial file is
    left.
    """
    from swarmcg.bot_code.download import Deadline, Passing, Session, entry_address  # noqa: PLC0415  urllib: 30 ms

    address = entry_address(url, check_bot_id(bot_id))
    cache = Cache(cache_directory, limits.kept, limits.max_unpacked_bytes)
    deadline = Deadline(clock() + limits.total, clock)
    session = Session(address, bot_id, opener, deadline, limits)
    attempt = 1
    _LOG.info("downloading %s", address)
    while True:
        try:
            return _obtain(address, session, cache)
        except Passing as e:
            pause = min(limits.longest_wait, limits.first_wait * 2.0 ** (attempt - 1)) * (1 + chance()) / 2
            if attempt >= limits.attempts or deadline.left() <= pause:
                raise _after(attempt, e.error) from e.__cause__
            _LOG.info(
                "attempt %d of %d failed, the next is in %.1f s: %s",
                attempt,
                limits.attempts,
                pause,
                e.error.reason,
            )
        wait(pause)
        attempt += 1


def _obtain(address: str, session: "Session", cache: Cache) -> str:
    """One attempt: along the redirects to something known, or to the zip itself."""
    target = address
    for _ in range(_MOST_REDIRECTS + 1):
        known = cache.known(target)
        if known is not None:
            return known
        with session.get(target) as answer:
            if answer.location is None:
                noted = target if _CONTENT_ADDRESSED.fullmatch(target) else None
                return cache.store(answer.body(), source=address, target=noted)
            target = answer.location
    raise BotCodeError(
        "The server redirects in a circle",
        path=address,
        value=target,
        cause=f"more than {_MOST_REDIRECTS} redirects, the last to this address",
        remedy="Check that the URL is the Swarming server's own, and what stands before it.",
    )


def _after(attempts: int, error: BotCodeError) -> BotCodeError:
    """The last attempt's error, saying how many there were."""
    if attempts == 1:
        return error
    return BotCodeError(
        error.what,
        status=error.status,
        path=error.path,
        errno=error.errno,
        cause=f"{error.cause}, at the last of {attempts} attempts",
        remedy=error.remedy,
    )
