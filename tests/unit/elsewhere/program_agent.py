"""Starts bots of a server and does with them what it is told, a word a line; answers with a line of JSON."""

import json
import sys

import psutil

from swarmcg import Bot, Config, DroneStarter, LinuxResources, Starter

url, working_dir = sys.argv[1:]
limits = LinuxResources.from_json('{"memory": {"limit": 1048576}}')


def make_config(bot_id: str, work_directory: str) -> Config:
    return Config(bot_id, work_directory, limits, sys.executable, work_directory_limit=4096)


def answer(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


with Starter(url) as starter:
    drone = DroneStarter(working_dir, starter.start, make_config, lambda line: answer(said=line))
    bots: list[Bot] = []
    for line in sys.stdin:
        word = line.strip()
        if word == "start":
            bots.append(drone.start("bot-1"))
            answer(bot=repr(bots[-1]))
        elif word == "drain":
            bots[-1].drain()
            answer(report=json.loads(bots[-1].wait(60).to_json()))
        elif word == "terminate":
            bots[-1].terminate_or_kill(60)
            answer(report=json.loads(bots[-1].wait(0).to_json()))
        elif word == "children":
            answer(children=[process.pid for process in psutil.Process().children(recursive=True)])
        elif word == "kill":
            bots[-1].terminate_or_kill(0.3)
            answer(report=json.loads(bots[-1].wait(0).to_json()))
        elif word == "sweep":
            answer(swept=drone.sweep([]))
    drone.close()
