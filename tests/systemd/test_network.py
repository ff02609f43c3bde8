"""This tier's kernel limits packets: tests/contract/network.py."""

import pytest

from tests.contract.network import *  # noqa: F403  its tests are collected here

pytestmark = pytest.mark.long  # the tier host shows the same in a tenth of the time
