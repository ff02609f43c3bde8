"""Starts bots that are none in work directories of two starters, and ends without ending the last."""

import os
import sys

from swarmcg import Config, DroneStarter
from swarmcg.testing import FakeBot

working_dir, number = sys.argv[1:]
bots: list[FakeBot] = []


def start_bot(config: Config) -> FakeBot:
    bots.append(FakeBot(bot_id=config.bot_id))
    return bots[-1]


def make_config(bot_id: str, work_directory: str) -> Config:
    return Config(bot_id, work_directory, work_directory_limit=4096)


one, other = (DroneStarter(working_dir, start_bot, make_config) for _ in range(2))
left = other.sweep([])
assert len(left) == (0 if number == "1" else 1), left  # by the program before
one.start("bot")
other.start("bot")
assert one.sweep([]) == other.sweep([]) == []
bots[0].stop()
assert other.sweep([]) == []
assert len(one.sweep([])) == 1
assert len([name for name in os.listdir(working_dir) if name.startswith("bot.")]) == 1
one.close()
other.close()
