"""``python -m swarmcg.testing.server``: the embedded server as a command, and the controls of one that runs.

Without ``--at`` it serves until Ctrl-C and prints its URL, then what happens. With ``--at URL`` and a verb it is the
person at the server that runs there.
"""

import argparse
import base64
import contextlib
import json
import math
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from swarmcg.testing.control import PREFIX
from swarmcg.testing.hooks import NO_CIPD
from swarmcg.testing.server import SwarmingServer
from swarmcg.testing.tasks import Task

__all__ = ["main"]

_BROKEN_PIPE: Final = 128 + 13  # as a shell shows SIGPIPE, which some platforms lack
_TIMEOUT_S: Final = 30.0
_WAIT_S: Final = 10.0
_TOLD: Final = {"terminate": "end", "restart": "restart", "reboot": "reboot its host"}
_EPILOG: Final = """\
while it runs, from another terminal:
  --at URL list [--json]           bots and tasks, with their states and output
  --at URL task 'COMMAND' [--bot ID] [--wait] [--manifest JSON]
                                   a shell command for a bot; --wait prints its output and exits as it did
  --at URL cancel TASK             a task that runs is stopped by its bot at the bot's next update
  --at URL terminate BOT           the bot ends in an orderly way at its next poll
  --at URL restart BOT             the bot restarts itself
  --at URL reboot BOT              the bot reboots its host, if it may
  --at URL update VERSION[=FILE]   makes this package the live one: the bots update themselves

Whoever reaches the port can give commands to the bots: it is 127.0.0.1 unless --host says otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves, or gives one order to a server that runs. Returns the exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        status = _done(parser, asked)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away; a server that does is an URLError
        _abandon_output()
        return _BROKEN_PIPE
    return status


def _done(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> int:
    if asked.verb is not None and asked.at is None:
        parser.error(f"{asked.verb}: say where the server is, with --at URL")
    if asked.at is not None and asked.verb is None:
        parser.error("--at needs a verb: list, task, cancel, …")
    if asked.at is None:
        return _serve(parser, asked)
    try:
        return _order(asked)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as e:
        print(f"server: {_explained(e, asked.at)}", file=sys.stderr)
        return 1


def _abandon_output() -> None:
    """Keeps the interpreter from writing to the broken pipe once more while it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(null, sys.stdout.fileno())
    os.close(null)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage of it all."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        self.exit(2, f"server: {message}; --help tells what there is\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m swarmcg.testing.server",
        description="A Swarming server on loopback. It prints its URL, then what happens, until Ctrl-C.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to serve at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes any that is free")
    parser.add_argument(
        "--zip", action="append", default=[], type=_package, metavar="VERSION=FILE", dest="zips",
        help="a bot package made for this URL, with the version that it reports; may be given again, and the "
        "first is live (default: the small bot)",
    )  # fmt: skip
    parser.add_argument(
        "--bot-config", metavar="FILE", help="hooks for the bots (default: such as need no CIPD and no CAS)"
    )
    parser.add_argument(
        "--sleep", type=_seconds, default=1.0, metavar="SECONDS", help="for idle bots (default: 1)"
    )
    parser.add_argument(
        "--task", action="append", default=[], metavar="COMMAND", help="a shell command for the bot"
    )
    parser.add_argument("--then-terminate", action="store_true", help="end the bot once the tasks are done")
    parser.add_argument("--at", metavar="URL", help="give an order to the server that runs there")
    _add_verbs(parser.add_subparsers(dest="verb", metavar="VERB", help="see below"))
    return parser


def _add_verbs(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    verbs.add_parser("list").add_argument("--json", action="store_true", help="as one JSON object")
    task = verbs.add_parser("task")
    task.add_argument("command", metavar="COMMAND", help="for /bin/sh -c")
    task.add_argument("--bot", metavar="ID", help="for this bot alone")
    task.add_argument(
        "--wait", action="store_true", help="print its output when it has ended; exit as it did"
    )
    task.add_argument("--manifest", type=_manifest, default={}, metavar="JSON", help="fields of the manifest")
    verbs.add_parser("cancel").add_argument("task", metavar="TASK")
    for verb in ("terminate", "restart", "reboot"):
        verbs.add_parser(verb).add_argument("bot", metavar="BOT")
    verbs.add_parser("update").add_argument("package", metavar="VERSION[=FILE]")


def _manifest(text: str) -> Any:
    example = "give an object, as in '{\"grace_period\": 5}'"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({e}); {example}") from e
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object; {example}")
    return found


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (found := float(text)) < math.inf:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 on, as in 0.5")


def _package(text: str) -> tuple[str, bytes]:
    version, equals, path = text.partition("=")
    if not (version and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not VERSION=FILE")
    try:
        return version, _read(path)
    except OSError as e:
        raise argparse.ArgumentTypeError(f"{path}: {e.strerror}") from e


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _serve(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> int:
    try:
        hooks = NO_CIPD if asked.bot_config is None else _read(asked.bot_config).decode()
    except (OSError, UnicodeDecodeError) as e:
        parser.error(f"--bot-config {asked.bot_config}: {e}")
    version, packed = asked.zips[0] if asked.zips else (None, None)
    try:
        made = SwarmingServer(
            packed, version, host=asked.host, port=asked.port, sleep=asked.sleep, bot_config=hooks
        )
    except (OSError, OverflowError) as e:
        parser.error(f"{asked.host} port {asked.port} cannot be used: {e}")
    for version, packed in asked.zips[1:]:
        made.keep(packed, version)
    with made as server, contextlib.suppress(KeyboardInterrupt):
        print(server.url, flush=True)
        tasks = [server.give_task(["/bin/sh", "-c", command]) for command in asked.task]
        _tell(server, tasks, then_terminate=asked.then_terminate)
    return 0


def _tell(server: SwarmingServer, tasks: Sequence[Task], *, then_terminate: bool) -> None:
    """Prints what happens, for ever or until the bot that did the tasks has left."""
    told = 0
    printed: set[str] = set()
    terminated = False
    while True:
        for event in server.events_from(told):
            told += 1
            print(f"{event.bot_id}: {event.event} {event.message}".rstrip(), flush=True)
            if event.event == "bot_shutdown" and terminated:
                return
        for task in server.tasks:
            if task.ended and task.id not in printed:
                printed.add(task.id)
                print(task.output.decode(errors="replace"), end="", flush=True)
        if then_terminate and not terminated and told and all(task.id in printed for task in tasks):
            server.terminate(server.events[0].bot_id)
            terminated = True


def _order(asked: argparse.Namespace) -> int:
    """Does what the verb says at the server that runs. Raises OSError and ValueError."""
    verb = asked.verb
    if verb == "list":
        found = _ask(asked.at, verb)
        print(json.dumps(found, indent=1) if asked.json else _listing(found))
    elif verb == "task":
        command = ["/bin/sh", "-c", asked.command]
        task = _ask(asked.at, verb, command=command, bot=asked.bot, manifest=asked.manifest)
        return _followed(asked.at, task) if asked.wait else _said(task["task"])
    elif verb == "cancel":
        task = _ask(asked.at, verb, task=asked.task)
        if task["state"] == "CANCELED":
            return _said(f"task {asked.task} will never begin")
        return _said(f"told the bot of task {asked.task} to stop it at its next update")
    elif verb == "update":
        version, equals, path = asked.package.partition("=")
        packed = {"zip": base64.b64encode(_read(path)).decode()} if equals else {}
        _ask(asked.at, verb, version=version, **packed)
        return _said(f"version {version} is live: the bots update themselves at their next poll")
    else:
        _ask(asked.at, verb, bot=asked.bot)
        return _said(f"told {asked.bot} to {_TOLD[verb]} at its next poll")
    return 0


def _said(text: str) -> int:
    print(text)
    return 0


def _followed(url: str, task: Mapping[str, Any]) -> int:
    while task["state"] in {"PENDING", "RUNNING"}:
        task = _ask(url, "wait", task=task["task"], seconds=_WAIT_S)
    print(task["output"], end="")
    if task["state"] != "COMPLETED":
        print(f"server: {task['state']} {task['error'] or ''}".rstrip(), file=sys.stderr)
        return 1
    return int(task["exit_code"]) & 0xFF


def _ask(url: str, verb: str, **body: Any) -> dict[str, Any]:
    """The answer of the server to one control. Raises OSError and ValueError."""
    if not url.startswith("http://"):
        raise ValueError(f"{url} is no http:// URL")
    posted = json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310  checked above
        url.rstrip("/") + PREFIX + verb, posted, {"Content-Type": "application/json"}
    )
    # Without the proxies of the environment: the server is on this machine or named by hand.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _explained(error: OSError | ValueError, url: str) -> str:
    if isinstance(error, urllib.error.HTTPError):
        with contextlib.suppress(ValueError, LookupError, OSError), error:
            return str(json.load(error)["error"])
    if isinstance(error, urllib.error.HTTPError):
        return f"{url} answers {error.code} {error.reason}: it is no server of swarmcg.testing"
    if isinstance(error, urllib.error.URLError):
        why = error.reason.strerror if isinstance(error.reason, OSError) else error.reason
        return f"{url} cannot be reached: {why}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, json.JSONDecodeError):
        return f"{url} does not answer with JSON: it is no server of swarmcg.testing"
    return f"{url}: {error}" if isinstance(error, OSError) else str(error)


def _listing(found: Mapping[str, Any]) -> str:
    lines = [f"live version {found['version']}"]
    lines += [f"kept version {version}" for version in found["versions"] if version != found["version"]]
    for bot in found["bots"]:
        lines.append(
            f"bot {bot['bot']}: {bot['state']}, version {bot['version']}, seen {bot['seen_s_ago']} s ago"
        )
    for task in found["tasks"]:
        code = "" if task["exit_code"] is None else f", exit code {task['exit_code']}"
        error = f", {task['error']}" if task["error"] else ""
        lines.append(f"task {task['task']}: {task['state']}{code}, bot {task['bot'] or 'any'}{error}")
        lines += [f"    {line}" for line in task["output"].splitlines()]
    return "\n".join(lines)
