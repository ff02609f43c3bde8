"""What the library logs while a verb works, said as everything else is said on the command line."""

import contextlib
import logging
from collections.abc import Iterator

from swarmcg.cli.orders import say

__all__ = ["said"]


class _Sayer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextlib.contextmanager
def said(logger: str, level: int) -> Iterator[None]:
    """Says what this logger, and those below it, are told at this level and above."""
    log, handler = logging.getLogger(logger), _Sayer(level)
    before = log.level
    log.addHandler(handler)
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
