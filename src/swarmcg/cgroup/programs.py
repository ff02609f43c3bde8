"""Programs of ours on a cgroup, of each kind one or none: exchanged at one moment, and told from others' by name.

They vanish with the cgroup's directory, so no crash leaves one behind.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from swarmcg.cgroup import bpf

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Shown", "directory", "exchanged"]


class Shown(NamedTuple):
    """The ids of our programs as asked for, and as the kernel shows them afterwards."""

    asked: list[int]
    there: list[int]

    @property
    def as_asked(self) -> bool:
        """Whether the kernel shows just that."""
        return self.asked == self.there


@contextlib.contextmanager
def exchanged(kind: bpf.Kind, path: str, program: int | None) -> Iterator[Shown]:
    """Puts a loaded program in force for the cgroup at a path, in place of any that it had from us; None for none.

    At no moment is it without the earlier one or this. Two exchanges of one cgroup exclude each other by the caller's
    means. When the block raises, the earlier one is put back. Raises OSError; then it is in force, too.
    """
    with directory(path) as cgroup, contextlib.ExitStack() as held:
        asked = {} if program is None else {bpf.identity(program)[0]: program}
        before = _ours(kind, cgroup, held)
        _replace(kind, cgroup, asked, before)
        try:
            yield Shown([*asked], [*_ours(kind, cgroup, held)])
        except BaseException:
            _replace(kind, cgroup, dict(itertools.islice(before.items(), 1)), _ours(kind, cgroup, held))
            raise


def _ours(kind: bpf.Kind, cgroup: int, held: contextlib.ExitStack) -> dict[int, int]:
    """Descriptors of our programs on this cgroup by their ids, in order, for as long as they are held."""
    found = {}
    for number in bpf.attached(kind, cgroup).ids:
        with contextlib.suppress(FileNotFoundError):
            program = bpf.by_id(number)
            held.callback(os.close, program)
            if bpf.identity(program)[1] == bpf.NAME:
                found[number] = program
    return found


def _replace(kind: bpf.Kind, cgroup: int, asked: Mapping[int, int], before: Mapping[int, int]) -> None:
    """One of ours, or none, where there were these. More than one is there only when we were killed before
    Linux 5.6, between attaching the new one and detaching the old one.
    """
    rest = [program for number, program in before.items() if number not in asked]
    for program in asked.values() if len(rest) == len(before) else ():
        bpf.attach(kind, cgroup, program, instead_of=rest.pop(0) if rest else None)
    for other in rest:
        bpf.detach(kind, cgroup, other)


@contextlib.contextmanager
def directory(path: str) -> Iterator[int]:
    """A descriptor of the cgroup at a path. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
