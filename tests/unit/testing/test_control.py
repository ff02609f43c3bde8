"""The controls over HTTP, where the command does not come."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from swarmcg.testing import SwarmingServer

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    with SwarmingServer() as running:
        yield running


def refusal(
    server: SwarmingServer, verb: str, body: bytes | None, headers: dict[str, str]
) -> tuple[int, str]:
    request = urllib.request.Request(f"{server.url}/control/{verb}", body, headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as error:
        return error.code, json.load(error)["error"]


def test_a_web_page_cannot_give_tasks(server: SwarmingServer) -> None:
    command = b'{"command": ["true"]}'
    for headers in ({}, {"Content-Type": "text/plain"}):
        assert refusal(server, "task", command, headers)[0] == 415
    assert refusal(server, "task", None, JSON)[0] == 415
    assert server.tasks == []


@pytest.mark.parametrize(
    ("verb", "body", "status"),
    [
        ("dance", {}, 404),
        ("task", {}, 404),
        ("task", {"command": "true"}, 400),
        ("task", {"command": []}, 400),
        ("task", {"command": [1]}, 400),
        ("task", [], 400),
        ("task", {"command": ["true"], "manifest": [1]}, 400),
        ("wait", {"task": "1"}, 404),
        ("wait", {"task": "0000000000000011", "seconds": "soon"}, 400),
        ("wait", {"task": "0000000000000011", "seconds": -1}, 400),
        ("wait", {"task": "0000000000000011", "seconds": float("nan")}, 400),
        ("terminate", {"bot": ["b"]}, 400),
        ("update", {"version": "2", "zip": "!"}, 400),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    server: SwarmingServer, verb: str, body: Any, status: int
) -> None:
    task = server.give_task(["true"])
    version = server.version
    assert refusal(server, verb, json.dumps(body).encode(), JSON)[0] == status
    assert (server.tasks, server.version, task.state) == ([task], version, "PENDING")


def test_a_task_is_waited_for_no_longer_than_asked(server: SwarmingServer) -> None:
    task = server.give_task(["true"])
    body = json.dumps({"task": task.id, "seconds": 0.01}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/control/wait", body, JSON)) as answer:
        assert json.load(answer)["state"] == "PENDING"
