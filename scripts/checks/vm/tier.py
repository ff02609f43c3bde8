"""How tests/systemd is run, in every machine that can."""

from collections.abc import Sequence

SMOKE = ("-m", "not full")


def tier_command(options: Sequence[str], *, full: bool) -> list[str]:
    """The command in the guest: all of the tier under coverage, or its smoke selection."""
    pytest = ["python", "-m", "coverage", "run", "-m", "pytest", "-p", "no:cacheprovider"]
    selection = () if full else SMOKE
    named = [] if any(option.startswith("tests/") for option in options) else ["tests/systemd"]
    return [*pytest, "--junitxml=/opt/swarmcg/results/junit.xml", *selection, *named, *options]
