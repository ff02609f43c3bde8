"""What ``doctor --self-test`` starts: a program that behaves as bad bots do, and tells of it on its standard output.

Run as ``python -I -S canary.py WAY``. It says one line of JSON when it has done what it does, and ends when its
standard input does, if it still can. Standard library only; bounded, so that it harms nobody where nothing limits it.
"""

import json
import os
import signal
import sys

if sys.platform == "win32":
    raise ImportError(f"{__name__} needs POSIX")

__all__ = ["MOST_BYTES", "WAYS"]

_MOST_FORKS = 64
MOST_BYTES = 128 << 20
_PIECE_BYTES = 1 << 20


def stray() -> None:
    """Leaves a child, and a daemon in a session of its own whose parent is gone."""
    hear, tell = os.pipe()
    child = _fork()
    if os.fork() == 0:
        os.setsid()
        daemon = _fork()
        os.write(tell, b"%d" % daemon)
        os._exit(0)
    os.wait()
    _say(child=child, daemon=int(os.read(hear, 32)))


def forks() -> None:
    """Forks until it is refused."""
    made = 0
    try:
        while made < _MOST_FORKS:
            _fork()
            made += 1
    except OSError as e:
        _say(forked=made, errno=e.errno)
    else:
        _say(forked=made, errno=None)


def eat() -> None:
    """Uses more and more memory, and says how much it has, until somebody stops it or MOST_BYTES are reached."""
    eaten: list[bytearray] = []
    while len(eaten) * _PIECE_BYTES < MOST_BYTES:
        eaten.append(bytearray(b"x") * _PIECE_BYTES)
        _say(eaten=len(eaten) * _PIECE_BYTES)


def deaf() -> None:
    """Ignores SIGTERM; its standard input ends it all the same, when a test of it failed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _say(deaf=True)


WAYS = {way.__name__: way for way in (stray, forks, eat, deaf)}


def _fork() -> int:
    """A process that does nothing until a signal ends it."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


def _say(**told: object) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    WAYS[sys.argv[1]]()
    while os.read(0, 4096):
        pass
    os._exit(0)
