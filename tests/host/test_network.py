"""This tier's kernel limits packets: tests/contract/network.py."""

import pytest

from tests.contract.network import *  # noqa: F403  its tests are collected here

pytestmark = pytest.mark.xdist_group("network")  # some count all programs of this kernel that limit packets
