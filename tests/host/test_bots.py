"""A process in a slice keeps the contract of tests/contract/bots.py."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmcg.bot import Bot
from tests.contract.bots import *  # noqa: F403  its tests are collected here
from tests.host.engine import Engine


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


@pytest.fixture
def obedient(engine: Engine) -> Callable[[], Bot]:
    return lambda: engine.sh("trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done")


@pytest.fixture
def deaf(engine: Engine) -> Callable[[], Bot]:
    return lambda: engine.sh("trap '' TERM; echo ready; while :; do sleep 1000; done")
