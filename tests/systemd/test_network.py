"""This tier's kernel limits packets: tests/contract/network.py."""

from tests.contract.network import *  # noqa: F403  its tests are collected here
