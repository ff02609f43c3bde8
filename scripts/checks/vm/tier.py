"""How tests/systemd is run, in every machine that can."""

from collections.abc import Sequence
from typing import Final

SMOKE: Final = ("-m", "not full")
# A plugin that no test of this tier uses takes two seconds of an emulated processor.
UNUSED: Final = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")


def tier_command(options: Sequence[str], *, full: bool) -> list[str]:
    """The command in the guest: all of the tier under coverage, or its smoke selection."""
    pytest = ["python", "-m", "coverage", "run", "-m", "pytest", *UNUSED]
    selection = () if full else SMOKE
    named = [] if any(option.startswith("tests/") for option in options) else ["tests/systemd"]
    return [*pytest, "--junitxml=/opt/swarmcg/results/junit.xml", *selection, *named, *options]
