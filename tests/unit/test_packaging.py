"""What lies in packaging/ fits the program that it starts."""

import configparser
import re
from pathlib import Path
from typing import Final

from swarmcg.cli import sizes
from swarmcg.cli.host import stop_within

PACKAGING: Final = Path(__file__).parents[2] / "packaging"


def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as the module's documentation has it
    parser.read(PACKAGING / "systemd" / "swarmcg-bots.service")
    return parser["Service"]


def test_systemd_waits_for_the_whole_ladder() -> None:
    grace = re.search(r"--grace (\S+)", service()["ExecStop"])
    assert grace is not None
    assert sizes.grace("TimeoutStopSec", service()["TimeoutStopSec"]) > stop_within(
        sizes.grace("--grace", grace[1])
    )


def test_the_unit_is_a_static_scope_that_ends_as_a_whole() -> None:
    found = service()
    assert (found["Type"], found["GuessMainPID"]) == ("forking", "no")
    assert (found["Delegate"], found["KillMode"], found["OOMPolicy"]) == ("yes", "control-group", "continue")
