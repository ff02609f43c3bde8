"""What a person at a real Swarming server can do, over HTTP: each verb is a POST of a JSON object to
``/control/VERB``.

A web page must not be able to give tasks to a bot, so a body must say that it is JSON: a browser asks first
before it sends such a one to a foreign server, and is not answered.
"""

import base64
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from swarmcg.testing.faults import Reply
from swarmcg.testing.listener import Request
from swarmcg.testing.tasks import Task

if TYPE_CHECKING:
    from swarmcg.testing.server import SwarmingServer

__all__ = ["PREFIX", "answer_control"]

PREFIX: Final = "/control/"
_LONGEST_WAIT_S: Final = 10.0

_Body = Mapping[str, Any]


class _TooLateError(Exception):
    """What was asked of a task can't be done any more."""


def answer_control(server: "SwarmingServer", request: Request) -> Reply:
    """Does what the verb says. What cannot be is answered 4xx with ``{"error": text}``."""
    verb = _VERBS.get(request.target.removeprefix(PREFIX))
    if verb is None:
        return _reply(404, {"error": f"there is no {request.target}; there are: {', '.join(_VERBS)}"})
    if request.method != "POST" or not request.headers.get("Content-Type", "").startswith("application/json"):
        return _reply(415, {"error": "a control is a POST of application/json"})
    try:
        return _reply(200, verb(server, json.loads(request.body or b"{}")))
    except _TooLateError as e:
        return _reply(409, {"error": str(e)})
    except LookupError as e:
        return _reply(404, {"error": f"there is no {e.args[0] if e.args else 'such thing'}"})
    except (AttributeError, TypeError, ValueError) as e:
        return _reply(400, {"error": f"the body makes no sense: {e}"})


def _reply(status: int, body: Mapping[str, Any]) -> Reply:
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})


def _task(server: "SwarmingServer", body: _Body) -> dict[str, Any]:
    command = body["command"]
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise ValueError("the command must be a list of words")
    manifest = body.get("manifest", {})
    if not isinstance(manifest, dict):
        raise ValueError("the manifest must be an object")  # noqa: TRY004  answered as every body that makes no sense
    if own := manifest.keys() & {"self", "command", "bot_id"}:
        raise ValueError(
            f"the manifest cannot hold {', '.join(sorted(own))}: command and bot are given beside it"
        )
    return _row(server.give_task(command, bot_id=body.get("bot"), **manifest))


def _cancel(server: "SwarmingServer", body: _Body) -> dict[str, Any]:
    task = _find(server, body)
    if not server.cancel(task):
        raise _TooLateError(f"task {task.id} has ended already: {task.state}")
    return _row(task)


def _wait(server: "SwarmingServer", body: _Body) -> dict[str, Any]:
    """The task when it has ended, or after so many seconds, at most 10, as it is then."""
    task, seconds = _find(server, body), float(body.get("seconds", 0))
    if not seconds >= 0:
        raise ValueError(f"{seconds} s is no time to wait")
    with contextlib.suppress(TimeoutError):
        task.wait(min(seconds, _LONGEST_WAIT_S))
    return _row(task)


def _order(
    give: Callable[["SwarmingServer", str], None],
) -> Callable[["SwarmingServer", _Body], dict[str, Any]]:
    def order(server: "SwarmingServer", body: _Body) -> dict[str, Any]:
        bot_id = body["bot"]
        if bot_id not in {bot.bot_id for bot in server.bots}:
            raise LookupError(f"bot {bot_id!r}")
        give(server, bot_id)
        return {"bot": bot_id}

    return order


def _update(server: "SwarmingServer", body: _Body) -> dict[str, Any]:
    version, packed = str(body["version"]), body.get("zip")
    if packed is None and version not in server.versions:
        raise LookupError(f"package of version {version!r}")
    server.publish(None if packed is None else base64.b64decode(packed, validate=True), version)
    return {"version": version}


def _list(server: "SwarmingServer", _: _Body) -> dict[str, Any]:
    return {
        "url": server.url,
        "version": server.version,
        "versions": server.versions,
        "bots": [
            {
                "bot": b.bot_id,
                "version": b.version,
                "state": b.state,
                "seen_s_ago": round(time.time() - b.seen, 1),
            }
            for b in server.bots
        ],
        "tasks": [_row(task) for task in server.tasks],
    }


def _find(server: "SwarmingServer", body: _Body) -> Task:
    for task in server.tasks:
        if task.id == body["task"]:
            return task
    raise LookupError(f"task {body['task']!r}")


def _row(task: Task) -> dict[str, Any]:
    return {
        "task": task.id,
        "state": task.state,
        "bot": task.bot_id,
        "exit_code": task.exit_code,
        "error": task.error,
        "command": task.command,
        "output": task.output.decode(errors="replace"),
    }


_VERBS: Final[dict[str, Callable[["SwarmingServer", _Body], dict[str, Any]]]] = {
    "task": _task,
    "cancel": _cancel,
    "wait": _wait,
    "terminate": _order(lambda server, bot_id: server.terminate(bot_id)),
    "restart": _order(lambda server, bot_id: server.restart(bot_id)),
    "reboot": _order(lambda server, bot_id: server.reboot(bot_id)),
    "update": _update,
    "list": _list,
}
