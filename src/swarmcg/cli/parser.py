"""An argparse parser whose complaints are errors of ours."""

import argparse
from typing import Final, NoReturn

from swarmcg.errors import ConfigError

__all__ = ["Parser", "UsageError"]


class UsageError(ConfigError):
    """The command line makes no sense."""


_TERMINAL: Final = "Leave it out: the command has this terminal and standard input anyway."
_HABITS: Final = {
    "--name": "Give it as --id: swarmcg run --id NAME -- COMMAND.",
    "--rm": "Leave it out: nothing is left of a slice after its end.",
    **dict.fromkeys(("-it", "-ti", "-i", "-t", "--interactive", "--tty"), _TERMINAL),
    "-c": "Give it as --cpu-shares.",
    "-d": "Give it as --detach.",
    "-v": "Leave it out: a slice has no file system of its own, and sees all of the host's files.",
}
"""Flags of docker's that are not needed here, or called otherwise."""
_UNKNOWN: Final = "unrecognized arguments: "


def _habit(message: str) -> str | None:
    if not message.startswith(_UNKNOWN):
        return None
    words = (word.partition("=")[0] for word in message.removeprefix(_UNKNOWN).split())
    return next((_HABITS[word] for word in words if word in _HABITS), None)


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, so that a flag added later changes the meaning of no script."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raises UsageError where argparse would print and exit."""
        raise UsageError(
            f"{self._verb}{message}",
            cause="the command line could not be understood",
            remedy=_habit(message) or f"'{self.prog} --help' lists what there is.",
        )

    @property
    def _verb(self) -> str:
        """For the start of an error, before which "swarmcg: " stands already."""
        verb = self.prog.removeprefix("swarmcg").strip()
        return f"{verb}: " if verb else ""

    def rest(self, name: str, metavar: str, help_text: str = argparse.SUPPRESS) -> None:
        """Takes everything from the first word that is no flag of ours, be it a flag of somebody else's."""
        self.add_argument(name, nargs=argparse.REMAINDER, metavar=metavar, help=help_text)
