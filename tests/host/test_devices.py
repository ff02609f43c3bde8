"""This kernel keeps the contract of tests/contract/device_rules.py."""

import pytest

from tests.contract.device_rules import *  # noqa: F403  its tests are collected here

pytestmark = pytest.mark.xdist_group("devices")  # some count all device programs of this kernel
