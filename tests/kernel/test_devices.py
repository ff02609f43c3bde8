"""This tier's kernel keeps the contract of tests/contract/device_rules.py."""

from tests.contract.device_rules import *  # noqa: F403  its tests are collected here
