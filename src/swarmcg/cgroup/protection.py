"""memory.low and memory.min: what protects a slice from reclaim counts for no more than every cgroup above it has."""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Collection, Iterable
from typing import Final

from swarmcg.cgroup.files import exchange_line, opened, read_value, write_line
from swarmcg.resources import quantity

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["PROTECTIONS", "amount", "put", "shown", "total", "wanted"]

PROTECTIONS: Final = ("memory.low", "memory.min")


def total(slices: Iterable[str], name: str, *, besides: Collection[str] = ()) -> float:
    """The sum of what the slices have of one protection, in bytes; infinite when one has ``max``."""
    return sum((amount(f"{path}/{name}") for path in slices if path not in besides), 0)


def put(home: str | None, slices: Collection[str], path: str, name: str, value: str) -> str:
    """Gives the slice at ``path`` this much, its home (None: another's, and left alone) the sum of its slices,
    and ``main`` the same as the slice.

    Raised from the outside inwards and lowered the other way round, so that nothing below is promised more
    than what is above has. For whoever holds the home's lock. Returns what the slice's file shows then. Raises OSError.
    """
    main = f"{path}/main/{name}"
    asked = wanted(value)
    if asked is None:  # for the kernel to refuse
        return exchange_line(f"{path}/{name}", value)
    with opened(f"{path}/{name}") as own:
        levels = [functools.partial(own.write, value)]
        # Without the memory controller in the slice's subtree_control the processes of main are charged to the
        # slice itself, and main has no such file. A bot may switch it on.
        if os.path.exists(main):
            levels.append(functools.partial(write_line, main, value))
        if home is not None:
            sum_ = shown(total(slices, name, besides=(path,)) + asked)
            levels.insert(0, functools.partial(write_line, f"{home}/{name}", sum_))
        raises = asked >= _bytes(own.read())
        try:
            for write in levels if raises else reversed(levels):
                write()
        except OSError:
            if home is not None:
                with contextlib.suppress(OSError):
                    write_line(f"{home}/{name}", shown(total(slices, name)))
            raise
        return own.read()


def wanted(value: str) -> float | None:
    """The bytes that a value asks for; None for one that the kernel will refuse."""
    return math.inf if value == "max" else quantity.size(value)


def amount(path: str) -> float:
    """The bytes in a file; infinite for ``max``, 0 for what is absent."""
    try:
        text = read_value(path)
    except OSError:
        return 0
    return _bytes(text)


def _bytes(text: str) -> float:
    return math.inf if text == "max" else int(text)


def shown(sum_: float) -> str:
    """The amount as the kernel takes it."""
    return "max" if math.isinf(sum_) else str(int(sum_))
