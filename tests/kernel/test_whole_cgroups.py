"""This tier's kernel keeps the contract of tests/contract/whole_cgroups.py."""

from tests.contract.whole_cgroups import *  # noqa: F403  its tests are collected here
