"""The fake bot keeps the contract of tests/contract/bots.py."""

from collections.abc import Callable

import pytest

from swarmcg.bot import Bot
from swarmcg.testing import FakeBot
from tests.contract.bots import *  # noqa: F403  its tests are collected here


@pytest.fixture
def obedient() -> Callable[[], Bot]:
    return FakeBot


@pytest.fixture
def deaf() -> Callable[[], Bot]:
    def ignore(_: FakeBot) -> None:
        """It hears nothing."""

    return lambda: FakeBot(drain=ignore, terminate=ignore)
