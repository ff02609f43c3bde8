"""This tier's kernel throttles mapped devices: tests/contract/mapped_disks.py."""

from tests.contract.mapped_disks import *  # noqa: F403  its tests are collected here
