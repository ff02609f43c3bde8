"""SIGTERM again, for a program that has forgotten it.

The stock bot only notes a SIGTERM, and updates itself by exec. Told to stop while it updates, it goes on as the new
version as if nothing had been said: it polls, and takes tasks. So a bot that was told is told again after
each exec; and never otherwise, since many programs take a second SIGTERM for impatience.
"""

import sys
from collections.abc import Callable
from typing import Final

from swarmcg.cgroup.files import read_text

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["LOOK_EVERY_S", "Image", "Reminder", "image_of"]

LOOK_EVERY_S: Final = 1.0
"""Nothing but ptrace tells of an exec, so somebody has to look now and then."""

Image = tuple[int, ...]


class Reminder:
    """Whether the process that was told is still the program that was told. Times are seconds of one
    monotonic clock.
    """

    def __init__(self) -> None:
        self.due: float | None = None
        """When :meth:`forgotten` is to be called, None for never."""
        self._image: Image | None = None

    def told(self, image: Image | None, now: float) -> None:
        """This program is being told. It was looked up before the signal was sent, so that no exec is
        missed.
        """
        self._image = image
        self.due = now + LOOK_EVERY_S

    def forgotten(self, look: Callable[[], Image | None], now: float) -> bool:
        """Whether another program runs there by now, which counts as told from here on."""
        if self.due is None or now < self.due:
            return False
        self.due = now + LOOK_EVERY_S
        image = look()
        if image is None or image == self._image:
            return False
        known, self._image = self._image is not None, image
        return known


def image_of(pid: int) -> Image | None:
    """What every exec sets anew: start_code, end_code and start_stack in /proc/PID/stat (proc(5)), the last
    one at random unless the host has switched that off.

    None for a process that is gone, in the middle of an exec, or not ours to look into.
    """
    try:
        fields = read_text(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    except OSError:
        return None
    image = tuple(map(int, fields[23:26]))
    return image if all(image) else None
