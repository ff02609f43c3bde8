"""The kernel is asked over pyroute2's own event loop, also by who has one."""

import asyncio
from pathlib import Path

import pytest

from swarmcg.cgroup import network


def test_a_coroutine_is_told_what_everybody_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMCG_RUNTIME_DIR", str(tmp_path))

    async def ask() -> tuple[object, list[str]]:
        return network.probe(), network.orphans(end=False)

    assert asyncio.run(ask()) == (network.probe(), network.orphans(end=False))
