"""What a host is looked at for: no more than is asked for needs, and no less."""

import json
from typing import Any

import msgspec
import pytest

from swarmcg.resources import Abilities, LinuxResources, plan
from swarmcg.resources.looks import EVERY_LOOK, Look, looks
from tests.contract.rows import ROWS, InForce
from tests.unit.resources.hosts import ABLE

GRANTED = msgspec.structs.replace(ABLE, granted={"memory.low": 4096, "memory.min": 4096})
FIELDS: dict[Look, tuple[str, ...]] = {
    "cpusets": ("cpus", "mems"),
    "devices": ("devices",),
    "disks": ("disks",),
    "files": ("files",),
    "hugepages": ("hugepages",),
    "protection": ("granted",),
}


def seen(at: frozenset[Look]) -> Abilities:
    """The host as it is for who has looked at these things alone."""
    unseen = Abilities(mode="unified")
    return msgspec.structs.replace(
        GRANTED,
        **{name: getattr(unseen, name) for look in EVERY_LOOK - at for name in FIELDS[look]},
    )


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_who_has_looked_at_that_alone_makes_the_same_plan(row: InForce) -> None:
    text = json.dumps(row.asked).replace('"DISK": 0', '"major": 8, "minor": 0')
    resources = LinuxResources.from_json(text)
    assert plan(resources, seen(looks(resources))) == plan(resources, GRANTED)


@pytest.mark.parametrize(
    ("asked", "at"),
    [
        ({}, set()),
        ({"pids": {"limit": 7}, "cpu": {"quota": 5000}, "memory": {"limit": 1 << 20}}, set()),
        ({"cpu": {"mems": "0"}}, {"cpusets"}),
        ({"memory": {"reservation": 4096}}, {"protection"}),
        ({"unified": {"memory.min": "4096"}}, {"protection"}),
        ({"unified": {"memory.high": "4096"}}, set()),
        ({"blockIO": {"weight": 100}}, {"disks"}),
        ({"hugepageLimits": []}, {"hugepages"}),
        ({"devices": []}, {"devices"}),
    ],
)
def test_nobody_looks_at_what_is_not_asked_for(asked: dict[str, Any], at: set[str]) -> None:
    assert looks(LinuxResources.from_json(json.dumps(asked))) == at
