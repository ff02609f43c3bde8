"""The row of devices, and whether a program is to be put in force."""

import json
import random
from typing import Any, Final

import pytest

from swarmcg.resources import Device, DeviceControl, Lack, devices
from swarmcg.resources.device_rules import complete
from tests.unit.resources.hosts import planned, row

TUN: Final[dict[str, Any]] = {
    "devices": [{"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rw"}]
}


def test_devices_are_put_in_force_by_a_program() -> None:
    made = planned(TUN)
    assert made.devices is not None
    assert made.devices.allows("c", 10, 200, "rw")
    assert not made.devices.allows("c", 10, 201, "r")
    found = row(made, "devices")
    assert found.enforceable
    assert found.file is None
    assert found.value == "deny all but c 10:200 rw; standard devices allowed unless denied by number"
    assert made.steps == ()


def test_where_no_program_can_be_loaded_they_are_refused() -> None:
    lack = Lack("no device program can be loaded", "Run as root.")
    made = planned(TUN, devices=DeviceControl(lack=lack))
    assert made.devices is None
    found = row(made, "devices")
    assert (found.enforceable, found.why, found.remedy) == (False, lack.why, lack.remedy)
    assert "c 10:200 rw" in (found.value or "")


def test_the_rules_of_ancestors_are_named() -> None:
    above = ("/sys/fs/cgroup/a.service", "/x of cgroup v1")
    found = row(planned(TUN, devices=DeviceControl(above=above)), "devices")
    assert found.enforceable
    assert found.why.endswith("; the rules of /sys/fs/cgroup/a.service and /x of cgroup v1 count as well")


def test_an_empty_list_denies_all_but_the_standard_devices() -> None:
    made = planned({"devices": []})
    assert made.devices is not None
    assert made.devices.allows("c", 1, 3, "rw")
    assert not made.devices.allows("c", 5, 1, "r")


def test_no_devices_and_every_device_need_no_program() -> None:
    assert planned({}).devices is None
    assert planned({}).rows == ()
    made = planned({"devices": [{"allow": True, "access": "rwm"}]}, devices=DeviceControl(lack=Lack("", "")))
    assert made.devices is None
    assert made.unenforced == ()


def test_the_longest_list_fits_into_an_attribute_and_comes_back() -> None:
    numbers = random.Random(5).sample(range(1 << 20), 5400)
    rules = complete([Device(allow=True, type="c", major=240, minor=n, access="rw") for n in numbers])
    told = devices.recorded(rules)
    assert len(json.dumps(told)) < 1 << 16
    assert devices.remembered(told) == rules


@pytest.mark.parametrize("told", [None, {}, {"zlib": "x"}, {"zlib": "AAAA"}, {"zlib": 5}, [], {"other": "x"}])
def test_what_somebody_garbled_is_no_record(told: object) -> None:
    assert devices.remembered(told) is None


def test_unified_does_not_override_devices() -> None:
    assert planned({**TUN, "unified": {"pids.max": "5"}}).devices is not None
